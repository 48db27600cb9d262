"""Scenario files: steps, and the expected end."""

from pathlib import Path
from typing import Any, Literal

import msgspec

Fault = Literal["none", "refuse", "busy", "deaf", "late", "blackhole", "hold"]
"""Of a proxy: connections are refused; handshakes are answered with 429; the client hears nothing;
what it is told waits, and passes when that ends; nothing passes; all that comes waits."""

Act = Literal["kill", "term", "start", "save", "roll_back"]
"""Of the server: SIGKILL, SIGTERM, started again; its Redis: is saved, and comes back as it was."""


class Step(msgspec.Struct, forbid_unknown_fields=True):
    """One step. Exactly one of do, wait, proxy, cut, freeze, thaw, sleep, connect, server is given.

    Attributes:
        do: device, command and arguments; "$i" stands for the round. times: rounds.
        every_ms: milliseconds between rounds.
        wait: a device, until all of the following is as given, at most `within` seconds: `pending`,
            `status`, `version`; `tokens`: at least so many were asked for; `event`: it was told
            this; `state`: at least these keys, numbers at least as great; `me`: what devices say
            of themselves, None for one that says nothing.
        proxy: a device, whose proxy has `fault` from here on. cut: its connections break.
        freeze: the process of a device stands still, until `thaw`. sleep: seconds.
        connect: a name for one more process, with the id `device_id`.
        server: see `Act`.
    """

    do: list[Any] | None = None
    times: int = 1
    every_ms: float = 0
    wait: str | None = None
    pending: int | None = None
    status: str | None = None
    version: int | None = None
    tokens: int | None = None
    event: str | None = None
    state: dict[str, Any] | None = None
    me: dict[str, Any] | None = None
    within: float = 20
    proxy: str | None = None
    fault: Fault = "none"
    cut: str | None = None
    freeze: str | None = None
    thaw: str | None = None
    sleep: float | None = None
    connect: str | None = None
    device_id: str = ""
    server: Act | None = None


class Expect(msgspec.Struct, forbid_unknown_fields=True):
    """At the end.

    Attributes:
        state: of all devices. version: of the session, if given. over: devices with an ended
            session, for which the rest does not apply. never: events that must not occur.
            max_messages: most messages of a device. counted: minimum increase of the server's
            metrics.
    """

    state: dict[str, Any]
    version: int | None = None
    over: list[str] = []
    never: list[str] = []
    max_messages: dict[str, int] = {}
    counted: dict[str, float] = {}


class Scenario(msgspec.Struct, forbid_unknown_fields=True):
    """A scenario. `token_seconds`: life of an access token. `settings`: variables of the server."""

    name: str
    devices: list[str]
    steps: list[Step]
    expect: Expect
    token_seconds: int = 900
    settings: dict[str, str] = {}


def load(path: Path) -> list[Scenario]:
    """The scenarios of a file, or of all `.json` files of a folder.

    Raises:
        ValueError: one is not a scenario, or there is none.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    found = [_read(file) for file in files]
    if not found:
        raise ValueError(f"no scenario in {path}")
    return found


def _read(file: Path) -> Scenario:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Scenario)
    except (msgspec.MsgspecError, OSError) as error:
        raise ValueError(f"{file}: {error}") from None


def reached(step: Step, look: dict[str, Any], tokens: int) -> bool:
    """Whether a device meets a `wait`. `look`: its answer; `tokens`: how many it asked for."""
    return (
        step.pending in (None, look["pending"])
        and step.status in (None, look["status"])
        and step.version in (None, look.get("version"))
        and tokens >= (step.tokens or 0)
        and (step.event is None or step.event in look["events"])
        and _within(step.state or {}, look["state"])
        and all((look.get("me", {}).get(k) or None) == v for k, v in (step.me or {}).items())
    )


def _within(wanted: dict[str, Any], state: dict[str, Any]) -> bool:
    for key, value in wanted.items():
        have = state.get(key)
        if isinstance(value, int) and isinstance(have, int):
            if have < value:
                return False
        elif have != value:
            return False
    return True


def with_round(value: Any, number: int) -> Any:
    """A value with "$i" replaced at any depth."""
    if isinstance(value, list):
        return [with_round(each, number) for each in value]
    if isinstance(value, dict):
        return {key: with_round(each, number) for key, each in value.items()}
    return number if value == "$i" else value
