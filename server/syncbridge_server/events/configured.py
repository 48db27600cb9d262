"""Endpoints out of a file, which `syncbridge deliver` reads at its start: SYNCBRIDGE_WEBHOOKS.

TOML, or JSON when its name ends in `.json`. Secrets stand elsewhere, in a file or a variable of the
environment each, and never in Redis: only this process has them. What is said of an endpoint is
checked as that of a request is.
"""

import os
from typing import Annotated

import msgspec
from msgspec import Meta

from syncbridge.errors import SyncBridgeError
from syncbridge.events.endpoints import (
    MOST_ENDPOINTS,
    Endpoint,
    EndpointSpec,
    check_secret,
    take,
)
from syncbridge_server.configuration.documents import read_bounded, read_document
from syncbridge_server.events.guard import Guard, check_spec
from syncbridge_server.settings import ConfigError

VARIABLE = "SYNCBRIDGE_WEBHOOKS"
MOST_SECRETS = 2
PREFIX = "file-"
"""Of the id of such an endpoint, before its name."""


class EndpointEntry(EndpointSpec, forbid_unknown_fields=True, kw_only=True):
    """One endpoint, as the file has it.

    `secret_file`, `secret_env`: where its secret stands; two, with a space between, while it is
    rotated, the newer one first.
    """

    name: Annotated[str, Meta(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]
    secret_file: str = ""
    secret_env: str = ""


class EndpointsFile(msgspec.Struct, forbid_unknown_fields=True):
    """The whole file."""

    endpoint: Annotated[list[EndpointEntry], Meta(max_length=MOST_ENDPOINTS)]


def load_endpoints(path: str, guard: Guard) -> list[Endpoint]:
    """The endpoints of a file, none without one. Raises ConfigError, one line without secrets."""
    if not path:
        return []
    where = f"{VARIABLE}: {path}"
    entries = read_document(path, where, EndpointsFile).endpoint
    names = [entry.name for entry in entries]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ConfigError(f"{where}: two endpoints are called {min(twice)}")
    return [_endpoint(entry, guard, f"{where}: {entry.name}") for entry in entries]


def _endpoint(entry: EndpointEntry, guard: Guard, where: str) -> Endpoint:
    try:
        check_spec(entry, guard)
        secrets = [check_secret(word) for word in _secret(entry, where).split()]
    except SyncBridgeError as error:
        raise ConfigError(f"{where}: {error.detail}") from None
    if not 1 <= len(secrets) <= MOST_SECRETS:
        raise ConfigError(f"{where}: one secret is expected, or two while it is rotated")
    endpoint = Endpoint(PREFIX + entry.name, "", secrets, configured=True)
    take(endpoint, entry, 0)
    return endpoint


def _secret(entry: EndpointEntry, where: str) -> str:
    if bool(entry.secret_file) == bool(entry.secret_env):
        raise ConfigError(f"{where}: either secret_file or secret_env is expected")
    if entry.secret_env:
        return os.environ.get(entry.secret_env, "")
    return read_bounded(entry.secret_file, f"{where}: secret_file").decode(errors="replace")
