"""What commands share that ask a running server over HTTP, as an admin.

They use the token in SYNCBRIDGE_TOKEN, else one that they sign themselves, as `syncbridge token`
does. Errors end with one line on standard error and exit code 1.
"""

import os
import time
from collections.abc import Callable
from typing import Annotated, NoReturn

import httpx
import typer

from syncbridge.errors import SyncBridgeError
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.configuration.secrets_file import with_dev_secrets
from syncbridge_server.settings import ConfigError

TOKEN = "SYNCBRIDGE_TOKEN"  # noqa: S105
SECONDS = 10.0
OPERATOR = "operator"

Url = Annotated[str, typer.Option("--url", help="Base URL of the server.")]
DEFAULT_URL = "http://127.0.0.1:8080"


class Rest:
    """Requests of one command. Use it as a context.

    Args:
        name: the command's, for errors. life: seconds for which a token is needed.
    """

    def __init__(self, name: str, url: str, life: float = 60.0) -> None:
        self._name = name
        headers = {"Authorization": f"Bearer {admin_token(self.fail, life)}"}
        try:
            self._http = httpx.Client(
                base_url=url, headers=headers, timeout=SECONDS, trust_env=False
            )
        except httpx.InvalidURL as error:
            self.fail(f"--url: {error}")

    def __enter__(self) -> "Rest":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: dict[str, str] | None = None,
    ) -> httpx.Response:
        """A successful answer; any other one ends the command. `body`: sent as JSON."""
        answer = self.try_to(method, path, query, body)
        if not answer.is_success:
            whose = given_token() if answer.status_code in (401, 403) else ""
            self.fail(f"{answer.status_code}: {detail_of(answer)}{whose}")
        return answer

    def try_to(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Any answer of a SyncBridge; none, or somebody else's success, ends the command."""
        where = self._http.base_url.copy_with(userinfo=b"")
        try:
            answer = self._http.request(method, path, params=query, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self.fail(f"nothing answers at {where} (--url): {type(error).__name__}")
        if answer.is_success and "x-request-id" not in answer.headers:
            self.fail(f"what answers at {where} (--url) is not SyncBridge")
        return answer

    def fail(self, message: str) -> NoReturn:
        """End the command with a line."""
        typer.echo(f"syncbridge {self._name}: {message}", err=True)
        raise typer.Exit(1)


def admin_token(fail: Callable[[str], NoReturn], seconds: float = 60.0) -> str:
    """An admin's token: that of the environment, else one signed with the server's secret.

    Args:
        fail: ends the command with a line. seconds: life of a token that is signed.
    """
    given = os.environ.get(TOKEN, "")
    if given and not given.isascii():
        fail(f"{TOKEN} is not a token")
    if given:
        return given
    try:
        settings = with_dev_secrets(load_settings(), create=False)
        if not settings.jwt_secret.get_secret_value() and settings.jwt_algorithm == "HS256":
            raise ConfigError(f"set {TOKEN} to an admin's token, or JWT_SECRET")
        if not settings.jwt_refresh_secret.get_secret_value():
            settings = settings.with_values(jwt_refresh_secret=os.urandom(32).hex())
        tokens, _ = build_tokens(settings)
        return tokens.mint_access(Grant(OPERATOR, Role.ADMIN), time.time(), seconds)[0]
    except ConfigError as error:
        fail(str(error))
    except SyncBridgeError as error:
        fail(error.detail)


def given_token() -> str:
    """For a refusal: that the token is one of the environment, if it is."""
    return f" (for the token in {TOKEN})" if os.environ.get(TOKEN) else ""


def detail_of(answer: httpx.Response) -> str:
    """What a problem document says."""
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return "no problem document"


def printable(line: str) -> str:
    """A line without what a terminal would obey; ids may hold it."""
    return "".join(c if c.isprintable() else "?" for c in line)
