"""`syncbridge dead-letters list | replay | discard`: a running server's dead letters, over HTTP.

It asks as an admin: with the token in SYNCBRIDGE_TOKEN, else with one that it signs itself, as
`syncbridge token` does. Nothing but the lines of the answer is printed, so that they can be piped;
errors end with one line on standard error and exit code 1.
"""

import json
import os
import time
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import httpx
import typer

from syncbridge.errors import SyncBridgeError
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.tokens import Grant
from syncbridge_server.secrets_file import with_dev_secrets
from syncbridge_server.settings import ConfigError, load_settings

PATH = "/admin/voice/dead-letters"
TOKEN = "SYNCBRIDGE_TOKEN"  # noqa: S105
PAGE = 200
SECONDS = 10.0
OPERATOR = "operator"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

Url = Annotated[str, typer.Option("--url", help="Base URL of the server.")]
Entry = Annotated[list[str], typer.Argument(help="Entries, as `list` shows them; or `all`.")]
DEFAULT_URL = "http://127.0.0.1:8080"


@app.command("list")
def list_letters(
    url: Url = DEFAULT_URL,
    as_json: Annotated[bool, typer.Option("--json", help="All of each, a line each.")] = False,
) -> None:
    """Print the dead letters, the latest first: entry, time, reason, events or the record."""
    with _client(url) as http:
        for letter in _letters(http):
            plain = (
                f"{letter['entry']}\t{letter['failed_at']}\t{letter['reason']}\t{_about(letter)}"
            )
            typer.echo(json.dumps(letter) if as_json else plain)


@app.command()
def replay(entries: Entry, url: Url = DEFAULT_URL) -> None:
    """Have dead letters taken in again."""
    with _client(url) as http:
        for entry in _named(http, entries):
            _ask(http, "POST", f"{PATH}/{entry}/replay")
            typer.echo(entry)


@app.command()
def discard(entries: Entry, url: Url = DEFAULT_URL) -> None:
    """Forget dead letters."""
    with _client(url) as http:
        for entry in _named(http, entries):
            _ask(http, "DELETE", f"{PATH}/{entry}")
            typer.echo(entry)


def _about(letter: dict[str, Any]) -> str:
    """The record that failed, as a JSON text, or the events of a webhook."""
    if letter["record"]:
        return f"{letter['kind']} {json.dumps(letter['record'])}"
    return ",".join(event["type"] for event in letter["events"]) or "-"


def _named(http: httpx.Client, entries: list[str]) -> list[str]:
    """The entries; for `all` those that are there now, the earliest first."""
    if entries != ["all"]:
        return entries
    return [letter["entry"] for letter in _letters(http)][::-1]


def _letters(http: httpx.Client) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        query = {"limit": str(PAGE), "cursor": cursor}
        page = _ask(http, "GET", PATH, query).json()
        yield from page["dead_letters"]
        cursor = page["next_cursor"]
        if not cursor:
            return


def _ask(
    http: httpx.Client, method: str, path: str, query: dict[str, str] | None = None
) -> httpx.Response:
    try:
        answer = http.request(method, path, params=query)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        _fail(f"the server does not answer: {type(error).__name__}")
    if answer.is_error:
        _fail(f"{answer.status_code}: {_detail(answer)}")
    return answer


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def _client(url: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {_token()}"}
    return httpx.Client(base_url=url, headers=headers, timeout=SECONDS, trust_env=False)


def _token() -> str:
    """An admin's token: the one of the environment, else one signed with the server's secret."""
    given = os.environ.get(TOKEN, "")
    if given:
        return given
    try:
        settings = with_dev_secrets(load_settings(), create=False)
        if not settings.jwt_secret.get_secret_value() and settings.jwt_algorithm == "HS256":
            raise ConfigError(f"set {TOKEN} to an admin's token, or JWT_SECRET")
        if not settings.jwt_refresh_secret.get_secret_value():
            settings = settings.with_values(jwt_refresh_secret=os.urandom(32).hex())
        tokens, _ = build_tokens(settings)
        return tokens.mint_access(Grant(OPERATOR, Role.ADMIN), time.time(), 60.0)[0]
    except ConfigError as error:
        _fail(str(error))
    except SyncBridgeError as error:
        _fail(error.detail)


def _fail(message: str) -> NoReturn:
    typer.echo(f"syncbridge dead-letters: {message}", err=True)
    raise typer.Exit(1)
