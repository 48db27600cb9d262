"""The command line, `syncbridge`: `dev`, `serve`, `token`, `version`, and those in `ELSEWHERE`.

A wrong configuration ends with one line on standard error and exit code 2. What is heavy (the
server, the load generator) is imported by the command that needs it.
"""

import gc
import importlib
import os
import sys
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from syncbridge import __version__
from syncbridge.errors import SyncBridgeError
from syncbridge.identity import Role, VoiceGrant
from syncbridge_server.admin.links import address as link_address
from syncbridge_server.admin.links import new_code
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.commands import usage
from syncbridge_server.configuration.docs import plain_text
from syncbridge_server.configuration.files import read_dotenv
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.configuration.secrets_file import with_dev_secrets
from syncbridge_server.durations import parse_duration, short_duration
from syncbridge_server.environment import unknown_names
from syncbridge_server.log import configure_logging, get_logger
from syncbridge_server.production import validate_production
from syncbridge_server.settings import ConfigError, Settings, variable
from syncbridge_server.signals import hold_signals

T = TypeVar("T")

EXIT_CONFIG = 2
DEV_ADDRESS = "127.0.0.1:8080"
DEV_USER = "demo"
DEV_TOKEN_SECONDS = 86_400.0
ELSEWHERE = {
    "admin-link": (
        "syncbridge_server.commands.admin_link",
        "Print a link that opens the dashboard once, within ten minutes.",
    ),
    "bench": ("syncbridge_tools.bench.cli", "Measure a running server under load."),
    "check": (
        "syncbridge_server.commands.check",
        "Check that a server would start and work here: settings, Redis, ports, provider.",
    ),
    "dead-letters": (
        "syncbridge_server.commands.dead_letters",
        "List, replay or discard webhooks that could not be processed.",
    ),
    "client-check": (
        "syncbridge_tools.client_check.cli",
        "Check that a client follows the protocol.",
    ),
    "deliver": (
        "syncbridge_server.commands.deliver",
        "Post events to the endpoints that admins have made.",
    ),
    "events": (
        "syncbridge_server.commands.events",
        "Show what happened, and what happens from now on, to sessions, devices and calls.",
    ),
    "rtk-sim": (
        "syncbridge_tools.rtk_sim.cli",
        "Run a stand-in voice provider that can inject faults.",
    ),
    "tail": (
        "syncbridge_server.commands.tail",
        "Show what happens in a session, live: its devices, writes and calls.",
    ),
    "why": (
        "syncbridge_server.commands.why",
        "Explain why a user is shown in a voice call, or is not.",
    ),
}
"""Commands that live in modules of their own, which are imported only when they run."""

STAND_IN = "syncbridge_tools.rtk_sim.beside"
"""The stand-in voice provider of `dev`, by its name as in `ELSEWHERE`."""


class Commands(TyperGroup):
    """The commands; shells complete the options of those in `ELSEWHERE`, too."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, found, rest = super().resolve_command(ctx, args)
        if ctx.resilient_parsing and name in ELSEWHERE:
            found = get_command(importlib.import_module(ELSEWHERE[name][0]).app)
        return name, found, rest


app = typer.Typer(
    name="syncbridge",
    cls=Commands,
    invoke_without_command=True,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


class ServeCommand(TyperCommand):
    """A command whose help also lists every setting."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        typer.echo(plain_text())


Address = Annotated[
    str, typer.Option("--addr", help="Address to listen on; overrides SERVER_ADDR.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=256, help="Number of processes; overrides SYNCBRIDGE_WORKERS."),
]
Ttl = Annotated[str, typer.Option(metavar="15m", help="Lifetime, such as 90s, 15m, 12h or 7d.")]


@app.callback()
def command(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Keep the live state of a user's session the same on all of their devices."""
    if version:
        _print_version()
        raise typer.Exit


@app.command()
def dev(
    addr: Address = "",
    data_dir: Annotated[
        str, typer.Option(help="Folder of data and secrets; overrides SYNCBRIDGE_DATA_DIR.")
    ] = "",
) -> None:
    """Start a development server: this machine only, embedded Redis, generated secrets."""
    settings = _load(server_addr=addr, data_dir=data_dir)
    changes: dict[str, Any] = {"dev": True}
    if "server_addr" not in settings.model_fields_set:
        changes["server_addr"] = DEV_ADDRESS
    if "log_format" not in settings.model_fields_set:
        changes["log_format"] = "console"
    if "key_writers" not in settings.model_fields_set:
        changes["key_writers"] = True
    settings = _or_exit(lambda: with_dev_secrets(settings.with_values(**changes), create=True))
    _begin(settings)
    settings = _with_voice(settings)
    grant = Grant(DEV_USER, Role.USER, voice=(VoiceGrant("*", "*", ("*",)),))
    token = _mint(settings, grant, DEV_TOKEN_SECONDS)
    code = new_code()
    _welcome(settings, token, code)
    _run(settings, dev=True, code=code)


@app.command(cls=ServeCommand)
def serve(addr: Address = "", workers: Workers = None) -> None:
    """Start a production server. Refuses to start with an unsafe configuration."""
    settings = _load(server_addr=addr, workers=workers)
    _or_exit(lambda: validate_production(settings))
    _or_exit(lambda: build_tokens(settings))
    _begin(settings)
    _run(settings, dev=False)


@app.command()
def token(
    user: Annotated[str, typer.Option(help="User id: the token's `sub`.")],
    role: Annotated[Role, typer.Option(help="Role of the token's holder.")] = Role.USER,
    session: Annotated[str, typer.Option(help="Bind the token to this session id, a UUID.")] = "",
    device: Annotated[str, typer.Option(help="Bind the token to this device id.")] = "",
    ttl: Ttl = "15m",
) -> None:
    """Print an access token, signed with JWT_SECRET or with the secrets of `dev` in this folder."""
    settings = _or_exit(lambda: with_dev_secrets(_load(), create=False))
    if session:
        try:
            session = str(uuid.UUID(session))
        except ValueError:
            _fail("--session must be a UUID")
    life = _life(ttl, settings.max_token_life)
    typer.echo(_mint(settings, Grant(user, role, session, device), life))


@app.command()
def version() -> None:
    """Print the version."""
    _print_version()


def _print_version() -> None:
    typer.echo(f"syncbridge {__version__}")


def _delegate(name: str, module: str, text: str) -> None:
    """A command that hands everything after its name to another module's Typer application."""
    context = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

    @app.command(name, context_settings=context, help=text)
    def run(ctx: typer.Context) -> None:
        try:
            other = importlib.import_module(module).app
        except ImportError as error:
            _fail(f"`syncbridge {name}` is not installed: {error}")
        raise typer.Exit(usage.run(other, ctx.args, f"syncbridge {name}"))


for _name, (_module, _text) in ELSEWHERE.items():
    _delegate(_name, _module, _text)


def _begin(settings: Settings) -> None:
    """Refuse mistyped variables, and tell of those that nothing reads."""
    known = {variable(name) for name in Settings.model_fields}
    unknown = _or_exit(lambda: unknown_names({**read_dotenv(), **os.environ}, known))
    configure_logging(settings.log_format, settings.log_level)
    if unknown:
        get_logger("APP").warning("unknown_settings", names=unknown)


def _load(**overrides: Any) -> Settings:
    """Settings from the environment; overrides that are empty do not count."""
    return _or_exit(lambda: load_settings(**{k: v for k, v in overrides.items() if v}))


def _life(text: str, longest: float) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        _fail(f"--ttl: {error}")
    if not 0 < seconds <= longest:
        _fail(f"--ttl: at most {short_duration(longest)}, and longer than nothing")
    return seconds


def _mint(settings: Settings, grant: Grant, ttl: float) -> str:
    def mint() -> str:
        if not settings.jwt_secret.get_secret_value() and settings.jwt_algorithm == "HS256":
            raise ConfigError("JWT_SECRET is not set; no secret of `syncbridge dev` is here")
        tokens, _ = build_tokens(_with_any_refresh_secret(settings))
        return tokens.mint_access(grant, time.time(), ttl)[0]

    return _or_exit(mint)


def _with_any_refresh_secret(settings: Settings) -> Settings:
    """Printing an access token needs no refresh secret."""
    if settings.jwt_refresh_secret.get_secret_value():
        return settings
    return settings.with_values(jwt_refresh_secret=uuid.uuid4().hex * 2)


def _run(settings: Settings, dev: bool, code: str = "") -> None:
    hold_signals()
    gc.disable()  # nothing of what is imported is garbage
    module = importlib.import_module("syncbridge_server.start")
    gc.enable()
    try:
        module.run(settings, dev=dev, code=code)
    except ConfigError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def _or_exit(action: Callable[[], T]) -> T:
    """The result of `action`; a bad configuration ends the process."""
    try:
        return action()
    except ConfigError as error:
        _fail(str(error))
    except SyncBridgeError as error:
        _fail(error.detail)


def _fail(message: str) -> NoReturn:
    typer.echo(f"syncbridge: {' '.join(message.split())}", err=True)
    raise typer.Exit(EXIT_CONFIG)


def _with_voice(settings: Settings) -> Settings:
    """With the stand-in provider, where no provider is configured.

    Workers are told by their environment, so that they all have the same one.
    """
    if settings.voice or settings.voice_provider != "rtk":
        return settings
    names = ("RTK_API_URL", "RTK_API_KEY", "RTK_SECRET_KEY")
    told = dict(zip(names, importlib.import_module(STAND_IN).start(), strict=True))
    told["WORKER_URL"] = settings.worker_url or _url(settings)
    if settings.workers > 1:
        os.environ.update(told)
    return settings.with_values(**{name.lower(): value for name, value in told.items()})


def _welcome(settings: Settings, access_token: str, code: str) -> None:
    from rich.console import Console
    from rich.panel import Panel

    url = _url(settings)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Panel.fit(f"SyncBridge {__version__}, development mode\n{url}", style="bold"))
    console.print(
        "The address shows a demo. Devices connect at /ws; the API reference is at /docs."
    )
    console.print(f"Dashboard, once and for ten minutes: {link_address(code, url)}")
    console.print(f"Secrets and data: {settings.data_dir}/")
    console.print(f"\nA token for user {DEV_USER!r}, good for a day:")
    typer.echo(access_token)
    console.print("\nPaste this into another terminal:")
    typer.echo(
        f"curl -s {url}/session/snapshot -H 'Content-Type: application/json'"
        f' -d \'{{"session_id": "{uuid.uuid4()}", "user_id": "{DEV_USER}",'
        ' "device_id": "laptop", "state_data": {"mood": "calm"}}\'\n'
    )


def _url(settings: Settings) -> str:
    """Where this machine reaches the server."""
    address = settings.listen_addresses()[0]
    host = "127.0.0.1" if address.host in ("0.0.0.0", "::") else address.host  # noqa: S104
    url = f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"
    if address.path:
        return str(address)
    return url


def main() -> None:
    """Console entry point."""
    sys.exit(usage.run(app, None, "syncbridge"))


if __name__ == "__main__":
    main()
