"""`syncbridge rtk-sim`: run the simulated provider on this machine."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Annotated

import trio
import typer

from syncbridge_server.listener.shutdown import run_until_stopped
from syncbridge_tools.rtk_sim.app import new_sim, running

EXIT_USAGE = 2

app = typer.Typer(
    name="rtk-sim",
    help="A simulated RealTimeKit provider over real HTTP, for development and tests.",
    add_completion=False,
    pretty_exceptions_enable=False,
)

Bind = Annotated[str, typer.Option("--bind", help="Address to listen on.")]
Key = Annotated[str, typer.Option(envvar="RTK_API_KEY", help="API key that callers must send.")]
Secret = Annotated[str, typer.Option(envvar="RTK_SECRET_KEY", help="Secret that signs webhooks.")]
Remote = Annotated[bool, typer.Option("--allow-remote", help="Allow webhooks to other machines.")]


@app.command()
def run(
    bind: Bind = "127.0.0.1:8090", key: Key = "", secret: Secret = "", allow_remote: Remote = False
) -> None:
    """Run until a signal. The specification's API is at /, Cloudflare's at /client/v4."""
    try:
        trio.run(_serve, bind, key, secret, allow_remote)
    except* (OSError, ValueError) as errors:
        typer.echo(f"syncbridge rtk-sim: {_first(errors)}", err=True)
        raise typer.Exit(EXIT_USAGE) from None


async def _serve(bind: str, key: str, secret: str, allow_remote: bool) -> None:
    key, secret = key or secrets.token_urlsafe(24), secret or secrets.token_urlsafe(32)
    sim = new_sim(key, secret, allow_remote)

    async def serve(asked_to_stop: Callable[[], Awaitable[None]]) -> None:
        async with running(sim, bind) as url:
            typer.echo(f"RTK_API_URL={url}\nRTK_API_KEY={key}\nRTK_SECRET_KEY={secret}")
            await asked_to_stop()

    await run_until_stopped(serve)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
