"""Log lines: their two forms, their service and function, and what never gets into them."""

import io
import json
import logging
import re
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from syncbridge_server.log import (
    _SECRET_TEXT,
    REDACTED,
    REQUEST_ID,
    Frequent,
    configure_logging,
    get_logger,
    redact,
)

SECRET = "correct-horse-battery-staple"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def start(log_format: str = "console", level: str = "info") -> io.StringIO:
    """Logging into a text."""
    out = io.StringIO()
    configure_logging(log_format, level, out)
    return out


def create_session(**details: Any) -> None:
    """A function whose name is in the line."""
    get_logger("SESSION_MANAGER").info("session_created", **details)


def test_console_line_has_the_documented_form() -> None:
    """[SERVICE_NAME][LEVEL][Function_Name] Message. Details..."""
    out = start()

    create_session(session_id="s-1", type="SIP")

    line = "[SESSION_MANAGER][INFO][create_session] session_created. session_id=s-1 type=SIP\n"
    assert line == out.getvalue()


def test_json_line_has_everything_by_name() -> None:
    """One object a line, with a time."""
    out = start("json")

    create_session(session_id="s-1", count=3)

    entry = json.loads(out.getvalue())
    assert entry.pop("timestamp").endswith("Z")
    assert {
        "service": "SESSION_MANAGER",
        "level": "info",
        "function": "create_session",
        "message": "session_created",
        "session_id": "s-1",
        "count": 3,
    } == entry


def test_a_logger_without_a_service_speaks_for_its_package() -> None:
    """Modules that name no service are known by their package."""
    out = start()
    module = {"__name__": "syncbridge_server.redis.bus.bus", "structlog": structlog}
    exec("def subscribe():\n structlog.get_logger().info('Up')", module)
    module["subscribe"]()
    structlog.get_logger().info("Test")

    assert ["[REDIS][INFO][subscribe] Up.", "[SYNCBRIDGE][INFO]"] == [
        line.partition("[test_")[0] for line in out.getvalue().splitlines()
    ]


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "refresh_token",
        "secret",
        "jwt_secret",
        "password",
        "REDIS_PASSWORD",
        "authorization",
        "Authorization",
        "cookie",
        "api_key",
        "rtk_api_key",
        "private_key",
    ],
)
def test_secrets_are_redacted(log_format: str, name: str) -> None:
    """Values under such names do not show, at any depth."""
    out = start(log_format)

    create_session(**{name: SECRET})
    create_session(headers={name: SECRET, "deep": [{name: (SECRET,)}]})

    assert SECRET not in out.getvalue()
    assert 3 == out.getvalue().count("[redacted]")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer " + SECRET,
        f"redis://default:{SECRET}@host:1/0",
        f"got eyJhbGciOiJIUzI1NiJ9.e30.{SECRET} from somebody",
    ],
)
def test_secrets_inside_of_texts_are_redacted(text: str) -> None:
    """A token or a URL with a password does not show in messages, values, or traces."""
    out = start()

    create_session(reason=text)
    get_logger("A").info(text)
    try:
        raise RuntimeError(text)
    except RuntimeError:
        logging.getLogger("b").exception("Failed")

    assert SECRET not in out.getvalue()
    assert 3 == out.getvalue().count("[redacted]")


def test_names_that_only_look_secret_stay() -> None:
    """Times and counts about tokens are no secrets."""
    out = start()

    create_session(token_expires_at=7, tokens_seen=3)

    assert "token_expires_at=7 tokens_seen=3" in out.getvalue()


def test_nobody_writes_a_line_of_their_own() -> None:
    """Line breaks and terminal codes in values are shown, not obeyed."""
    out = start()

    create_session(user="eve\n[AUTH][INFO][login] Welcome admin.\x1b[2J\u2028")

    assert 1 == len(out.getvalue().splitlines())
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("log_format", ["console", "json"])
@pytest.mark.parametrize("odd", ["\udcff", "a\ud83d", "\u202egnihtemos\u2066"])
def test_ids_that_are_no_text_break_no_line(log_format: str, odd: str) -> None:
    """Halves of surrogate pairs can be written nowhere; they are shown as escapes, and so is what
    turns the direction of a line that people read."""
    out = start(log_format)

    create_session(user=odd)

    out.getvalue().encode()
    assert 1 == len(out.getvalue().splitlines())
    assert "\u202e" not in out.getvalue() or log_format == "json"


def test_long_values_are_cut() -> None:
    """A line has a bound."""
    out = start()

    create_session(payload="x" * 1_000_000)

    assert len(out.getvalue()) < 3_000


def test_standard_library_takes_the_same_way() -> None:
    """Records of other libraries look like ours, with their function."""
    out = start()

    logging.getLogger("hypercorn.error").warning("Lost %s", "a worker")
    logging.getLogger("httpx").info("GET https://provider.example/?token=x")

    name = test_standard_library_takes_the_same_way.__name__
    assert f"[HYPERCORN][WARNING][{name}] Lost a worker.\n" == out.getvalue()


def test_warnings_are_logged() -> None:
    """A Python warning becomes a log line."""
    out = start()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", stacklevel=1)

    assert "[PY][WARNING]" in out.getvalue()
    assert "old thing" in out.getvalue()


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_filters(level: str, seen: list[str]) -> None:
    """Lines below the level are not written, from neither side."""
    out = start("json", level)
    for name in ("debug", "info", "warning", "error"):
        getattr(get_logger("A"), name)("ours")
        getattr(logging.getLogger("b"), name)("theirs")

    entries = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(name, who) for name in seen for who in ("ours", "theirs")] == [
        (entry["level"], entry["message"]) for entry in entries
    ]


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_exception_brings_its_trace(log_format: str) -> None:
    """`exception()` writes the trace, in JSON inside the one line."""
    out = start(log_format)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        get_logger("A").exception("It failed")
        logging.getLogger("b").exception("That too")

    assert 2 == out.getvalue().count("RuntimeError: broken")
    if log_format == "json":
        assert 2 == len(out.getvalue().splitlines())


def test_an_object_that_cannot_be_shown_breaks_nothing() -> None:
    """A record whose arguments do not fit its text does not raise in the caller."""
    out = start()
    raising, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        logging.getLogger("b").warning("%d", "no number")
    finally:
        logging.raiseExceptions = raising

    assert "" == out.getvalue()


@pytest.mark.parametrize(
    "part", ["eyJ", "eyJabcdef.", "a", "://a:", "Bearer ", "-.", "eyJabcde.a."]
)
def test_hostile_text_costs_no_more_than_its_length(part: str) -> None:
    """A megabyte made to be looked at again and again, which would take hours, is done at once."""
    event = {"event": part * (1_000_000 // len(part))}

    assert event["event"]
    redact(None, "info", event)


@pytest.mark.parametrize("around", ["{}", "x{}", "token={}", "'{}'", "a.{}", "{}.more"])
def test_tokens_are_found_wherever_they_stand(around: str) -> None:
    """Also behind other letters."""
    event = {"event": around.format("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln")}

    assert "eyJ" not in str(redact(None, "info", event)["event"])


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_frequent_line_is_that_of_a_logger(log_format: str) -> None:
    """Same members in the same order, secrets hidden; only the time differs."""
    details = {"path": "/a?x=eyJhbGciOi.eyJzdWIi.c2ln", "status": 200, "ms": 0.5, "token": SECRET}
    bound = REQUEST_ID.set("r-1")
    try:
        out = start(log_format)
        create_session(**details)
        Frequent("SESSION_MANAGER", "create_session", "session_created")(**details)
    finally:
        REQUEST_ID.reset(bound)

    first, second = (re.sub(r"\d{4}-[^\"]*Z", "TIME", line) for line in out.getvalue().splitlines())
    assert first == second
    assert "r-1" in first
    assert "c2ln" not in first
    assert SECRET not in first


def test_a_frequent_line_keeps_to_the_level_and_to_the_last_configuration() -> None:
    """Where lines go, and whether, is decided anew by each configuration, structlog's own too."""
    line = Frequent("HTTP", "finish", "request_answered")
    quiet, loud = start(level="warning"), io.StringIO()
    line()
    configure_logging("console", "info", loud)
    line()
    with structlog.testing.capture_logs() as captured:
        line(status=204)

    assert quiet.getvalue() == ""
    assert loud.getvalue() == "[HTTP][INFO][finish] request_answered.\n"
    assert [{"service": "HTTP", "status": 204}] == [
        {name: entry[name] for name in ("service", "status")} for entry in captured
    ]


@pytest.mark.parametrize("text", ["BEARER abc", "x EYJabcde.b.c", "redis://u:p@h", "Bearer é eyJ"])
def test_a_secret_is_found_whatever_its_case(text: str) -> None:
    """What is looked for before the search is not stricter than the search."""
    assert _SECRET_TEXT.sub(REDACTED, text) == redact(None, "", {"a": text})["a"] != text
