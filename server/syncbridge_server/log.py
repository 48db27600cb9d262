"""Log lines: `[SERVICE_NAME][LEVEL][Function_Name] Message. Details...` or one JSON object.

    _log = get_logger("SESSION_MANAGER")
    _log.info("session_created", session_id=sid)

    [SESSION_MANAGER][INFO][create_session] session_created. session_id=6b6f...

Everything that the standard library's `logging` is told (Hypercorn, redis-py, httpx) goes the same
way. Values under names such as token, secret or password never reach a line, nor do tokens inside
of texts, nor line breaks, so that nobody can write a line of their own. Lines go to standard error.
"""

import logging
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TextIO

import msgspec
import structlog
from structlog.typing import FilteringBoundLogger, Processor

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REDACTED = "[redacted]"
_SECRET_NAME = re.compile(
    r"token$|tokens$|secret|passw|authorization|cookie|api_?key|private_?key|credential|^jwt",
    re.IGNORECASE,
)
_SECRET_TEXT = re.compile(
    r"(?<![\w-])(?>[\w-]*?eyJ)[\w-]{5,}+\.[\w-]++\.[\w-]*+"
    r"|(?<=Bearer )\S++|(?<=://)[^/\s:@]*+:[^/\s@]++(?=@)",
    re.IGNORECASE,
)
"""What is secret wherever it stands: a JWT, a bearer token, name and password in a URL.

Takes time linear in the text: nothing of it is looked at again once it did not fit.
"""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a line must not have as it is: also what turns the direction of text, and no text at all."""
_QUIET = {"httpx": logging.WARNING, "httpcore": logging.WARNING, "hpack": logging.WARNING}
_MAX_VALUE = 2_000
_MAX_DEPTH = 4

REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the HTTP request that this task works on; in each of its lines."""


def get_logger(service: str) -> FilteringBoundLogger:
    """A logger whose lines begin with that service name."""
    logger: FilteringBoundLogger = structlog.get_logger(service=service)
    return logger


class Frequent:
    """A line of level info that is written very often, such as for each request.

    It is the line that a logger of `get_logger` would write. What such a logger finds out anew for
    each line (its processors, its level, who calls) is known here, which takes most of the cost.
    """

    def __init__(self, service: str, function: str, message: str) -> None:
        self._service = service
        self._function = function
        self._message = message

    def __call__(self, **details: Any) -> None:
        """Write the line."""
        way = _Way.configured
        if way is None or structlog.get_config()["processors"][-1:] != way.tail[-1:]:
            get_logger(self._service).info(self._message, **details)  # logging is not as we set it
        elif way.told:
            event = {"service": self._service, **details, "event": self._message}
            add_request_id(None, "info", event)
            event["level"] = "info"
            event["func_name"] = self._function
            way.write(event)


class _Way:
    """From an event to a line.

    Attributes:
        configured: of what was configured last. told: whether lines of level info are written.
    """

    configured: "_Way | None" = None

    def __init__(self, tail: list[Processor], out: TextIO, told: bool) -> None:
        self.tail = tail
        self.told = told
        self._out = out

    def write(self, event: Any) -> None:
        """Write an event to which only the last processors have not been applied."""
        for processor in self.tail:
            event = processor(None, "info", event)
        self._out.write(f"{event}\n")
        self._out.flush()


class Occasionally:
    """Whether it is time for another line about something that happens very often.

    Args:
        seconds: from one line to the next. clock: monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = -math.inf

    def due(self) -> bool:
        """True at most once in so many seconds; then the line must be written."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True


def configure_logging(
    log_format: str = "console", level: str = "info", stream: TextIO | None = None
) -> None:
    """Set logging up for this process. `log_format`: console or json."""
    out = stream or sys.stderr
    render: Processor = _render_json if log_format == "json" else render_console
    tail: list[Processor] = [
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
        structlog.processors.format_exc_info,
        redact,
        render,
    ]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_request_id,
            structlog.processors.add_log_level,
            add_origin,
            *tail,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    _Way.configured = _Way(tail, out, told=LEVELS[level] <= LEVELS["info"])
    logging.root.handlers[:] = [_StandardLibraryHandler(tail, out)]
    logging.root.setLevel(LEVELS[level])
    logging.captureWarnings(True)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, LEVELS[level]))


def add_request_id(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Say which HTTP request it is about, if it is about one."""
    name = REQUEST_ID.get()
    if name:
        event.setdefault("request_id", name)
    return event


def add_origin(
    _logger: Any, _name: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Name the function that logs, and its package as the service when none was named.

    The function is that of the nearest frame that is neither structlog's nor this one.
    """
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("structlog."):
        frame = frame.f_back
    event["func_name"] = frame.f_code.co_name
    if "service" not in event:
        event["service"] = _service(frame.f_globals.get("__name__", ""))
    return event


@lru_cache(1_024)
def _service(module: str) -> str:
    """`syncbridge_server.redis.bus.bus` -> REDIS; SYNCBRIDGE for the top and for strangers."""
    words = module.split(".")
    return words[1].upper() if words[0].startswith("syncbridge") and words[1:] else "SYNCBRIDGE"


class _StandardLibraryHandler(logging.Handler):
    """Sends records of the standard library through our processors."""

    def __init__(self, tail: list[Processor], out: TextIO) -> None:
        super().__init__()
        self._tail = tail
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        try:
            event: Any = {
                "event": record.getMessage(),
                "service": record.name.partition(".")[0].upper(),
                "level": record.levelname.lower(),
                "func_name": record.funcName,
            }
            if record.exc_info:
                event["exc_info"] = record.exc_info
            for processor in self._tail:
                event = processor(None, record.levelname.lower(), event)
            self._out.write(f"{event}\n")
            self._out.flush()
        except Exception:
            self.handleError(record)


def redact(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace values that belong to names of secrets, and what looks like a secret in any text."""
    for key, value in event.items():
        if key in ("event", "exception"):
            event[key] = _hidden(_text(str(value)))
        else:
            event[key] = _clean(key, value, _MAX_DEPTH)
    return event


@lru_cache(4_096)
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _clean(key: str, value: Any, depth: int) -> Any:
    if _is_secret(key):
        return REDACTED
    if type(value) is str:  # as most are, and the question for a Mapping is a slow one
        return _hidden(_text(value[:_MAX_VALUE]))
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    if isinstance(value, Mapping) and depth:
        return {str(k): _clean(str(k), v, depth - 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)) and depth:
        return [_clean("", item, depth - 1) for item in value]
    return _hidden(_text(str(value)[:_MAX_VALUE]))


def _hidden(text: str) -> str:
    """Without what looks like a secret. Most texts have nothing by which one begins."""
    if text.isascii():
        low = text.lower()
        if "eyj" not in low and "bearer " not in low and "://" not in low:
            return text
    return _SECRET_TEXT.sub(REDACTED, text)


def _text(text: str) -> str:
    """Without halves of surrogate pairs, which no encoding can write."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()


def render_console(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    """`[SERVICE_NAME][LEVEL][Function_Name] Message. name=value name=value`."""
    event.pop("timestamp", None)
    service = event.pop("service", "SYNCBRIDGE")
    level = str(event.pop("level", "info")).upper()
    function = event.pop("func_name", "") or "-"
    trace = event.pop("exception", "")
    message = _one_line(str(event.pop("event", ""))).rstrip(".")
    details = " ".join(f"{key}={_one_line(str(value))}" for key, value in event.items())
    line = f"[{service}][{level}][{function}] {message}." + (f" {details}" if details else "")
    return f"{line}\n{trace}" if trace else line


def _render_json(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> str:
    event["message"] = event.pop("event", "")
    event["function"] = event.pop("func_name", "")
    return msgspec.json.encode(event).decode()


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: repr(match.group())[1:-1], text)
