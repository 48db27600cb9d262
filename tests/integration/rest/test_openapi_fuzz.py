"""Requests made up from the description, good and bad: no 5xx, and no answer that is not described.

For each operation some requests that fit its schema and some that do not, against a whole server.
The examples are the same in each run.
"""

import subprocess
import sys
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from support.redis_servers import RedisServer
from support.server_kit import Process, bearer, mint, server_process
from syncbridge.identity import Role

EXAMPLES = 20
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
LEAST_OPERATIONS = 20
MAX_WAIT_S = 60


@pytest.fixture
def provider() -> Iterator[dict[str, str]]:
    """The stand-in voice provider in a process of its own; the variables that lead to it."""
    command = [sys.executable, "-m", "syncbridge_server", "rtk-sim", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline().decode().strip() for _ in range(3)]
        try:
            yield dict(line.split("=", 1) for line in lines)
        finally:
            process.kill()


@pytest.fixture
def server(
    redis_server: RedisServer, tmp_path: Path, provider: dict[str, str]
) -> Iterator[Process]:
    unlimited = {
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
        "SYNCBRIDGE_ACCESS_LOG": "false",
        "SYNCBRIDGE_VOICE_REQUESTS_PER_MINUTE": "60000",
    }
    with server_process(tmp_path, redis_server.url, **unlimited, **provider) as process:
        yield process


def failures(
    operation: Any, mode: GenerationMode, headers: dict[str, str], session: str = ""
) -> list[str]:
    """What was wrong with the answers to made-up requests of one operation.

    `session`: take this one wherever a session is named.
    """
    wrong: list[str] = []

    @settings(
        max_examples=EXAMPLES // 2,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        if session:
            aim(case, session)
        hurry(case)
        response = case.call(headers=headers)
        if response.status_code == 414:
            return  # the bound of request targets; no schema of one parameter can tell it
        case.validate_response(response, checks=CHECKS)

    try:
        attempt()
    except BaseExceptionGroup as group:
        wrong += [f"{operation.label}: {error}" for error in group.exceptions]
    except AssertionError as error:
        wrong.append(f"{operation.label}: {error}")
    return wrong


def hurry(case: Any) -> None:
    """Let a long poll that is allowed end before the client gives up."""
    wait = (case.query or {}).get("wait")
    if isinstance(wait, int | float) and 1 < wait <= MAX_WAIT_S:
        case.query["wait"] = 1


def aim(case: Any, session: str) -> None:
    """Let a request be about a session that exists."""
    for part in (case.path_parameters, case.body):
        if isinstance(part, dict) and "session_id" in part:
            part["session_id"] = session


def names_session(operation: Any) -> bool:
    """Whether a session is named in the path or the body."""
    schema = operation.definition.raw.get("requestBody", {})
    return "{session_id}" in operation.path or ("/session/" in operation.path and bool(schema))


def new_session_on(server: Process, headers: dict[str, str]) -> str:
    """A session with some state."""
    session = str(uuid.uuid4())
    body = {"session_id": session, "user_id": "ann", "state_data": {"a": 1, "b": [2]}}
    answer = httpx.post(f"{server.url}/session/snapshot", json=body, headers=headers)
    assert 201 == answer.status_code
    return session


def can_be_wrong(operation: Any) -> bool:
    """Whether there is a body, a path or a query that a schema can forbid."""
    return bool(len(operation.body) or len(operation.path_parameters) or len(operation.query))


@pytest.mark.slow
def test_no_answer_is_a_5xx_or_undescribed(server: Process) -> None:
    """Every operation, as an admin and as nobody."""
    admin = bearer(mint(f"admin-{uuid.uuid4().hex[:8]}", Role.ADMIN))
    tried, wrong = 0, []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
        for result in api.get_all_operations():
            operation = result.ok()
            tried += 1
            wrong += failures(operation, GenerationMode.POSITIVE, admin)
            if can_be_wrong(operation):
                wrong += failures(operation, GenerationMode.NEGATIVE, admin)
            if names_session(operation):
                session = new_session_on(server, admin)
                wrong += failures(operation, GenerationMode.POSITIVE, admin, session)
            wrong += failures(operation, GenerationMode.POSITIVE, {})

    assert [] == wrong
    assert tried >= LEAST_OPERATIONS
