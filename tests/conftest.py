"""Fixtures for all tests: a real Redis for the whole run, and one that a test may break."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest
import structlog
from hypothesis import settings

from support.redis_places import Anywhere, anywhere, client_of
from support.redis_servers import RedisServer

settings.register_profile("without-deadline", settings(), deadline=None)
settings.load_profile("without-deadline")
"""A machine that is busy is no counterexample."""

NO_AUTHORITY = str(Path(__file__).parent / "support" / "no_authority.pem")
"""One certificate, of nobody. The key was thrown away."""


def without_authorities(
    purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH, *, cafile: str | None = None, **more: Any
) -> ssl.SSLContext:
    """A context in 1 ms in place of 45: no server of the tests is known to a public authority."""
    public = (None, certifi.where(), os.environ.get("SSL_CERT_FILE"))
    return create_context(purpose, cafile=NO_AUTHORITY if cafile in public else cafile, **more)


create_context, ssl.create_default_context = ssl.create_default_context, without_authorities


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """A test sets the log up for itself: the next one would write to a file that is closed."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def _session_redis() -> Iterator[Anywhere]:
    with anywhere(os.environ.get("SYNCBRIDGE_TEST_PLACE", "single")) as place:
        yield place


@pytest.fixture(scope="session")
def _session_client(_session_redis: Anywhere) -> Iterator[Any]:
    with client_of(_session_redis.url) as client:
        yield client


@pytest.fixture
def redis_url(_session_redis: Anywhere, _session_client: Any) -> Iterator[str]:
    """URL of the Redis that all tests share, one after the other; afterwards it is empty again.

    It is one server, or what `SYNCBRIDGE_TEST_PLACE` says: `sentinel` or `cluster`.
    """
    yield _session_redis.url
    _session_client.flushall()


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A private Redis with an append-only file, which the test may pause, kill and start again."""
    with RedisServer(aof=True) as server:
        yield server
