"""`syncbridge client-check`: the Python client passes, one that forgets does not."""

import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from support.redis_servers import until
from support.source_tree import ROOT
from syncbridge_tools.client_check.proxy import FrameCounter, Proxy
from syncbridge_tools.client_check.scenario import Step, load, reached, with_round

SCENARIOS = ROOT / "clients" / "scenarios"
CHECK = (sys.executable, "-m", "syncbridge_server", "client-check")
SECONDS = 400

FORGETFUL = """
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    look = {"state": {}, "status": "online", "version": 0, "pending": 0, "events": []}
    print(json.dumps({"id": message["id"], "ok": True, **look}), flush=True)
"""


def check(*args: object) -> "subprocess.CompletedProcess[str]":
    command = [*CHECK, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.slow
def test_the_python_client_passes() -> None:
    """Every scenario, with nothing on standard error."""
    done = check(SCENARIOS, sys.executable, SCENARIOS / "driver.py")

    assert (0, "") == (done.returncode, done.stderr), done.stdout
    assert len(load(SCENARIOS)) == done.stdout.count("passed ")


@pytest.mark.slow
def test_a_client_that_forgets_fails(tmp_path: Path) -> None:
    """One that answers everything and does nothing is told apart, by the exit code too."""
    driver = tmp_path / "driver.py"
    driver.write_text(FORGETFUL)
    done = check("--only", "operations", SCENARIOS, sys.executable, driver)

    assert 1 == done.returncode
    assert done.stdout.startswith("failed operations of two devices")
    assert "1 of 1 scenarios failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((SCENARIOS, "no-such-driver"), "'no-such-driver' is no program"),
        ((SCENARIOS, "--only", "slider", "true"), "'--only' is no program; options come before"),
        (("--only", "no such name", SCENARIOS, "true"), "no scenario has 'no such name'"),
    ],
)
def test_what_cannot_be_carried_out_is_said(arguments: tuple[object, ...], said: str) -> None:
    """One line and exit code 2, no traceback and no success without a scenario."""
    done = check(*arguments)

    assert said in done.stderr
    assert (2, 1) == (done.returncode, len(done.stderr.splitlines()))


def test_what_is_no_scenario_is_said(tmp_path: Path) -> None:
    """The file is named, and nothing is started."""
    (tmp_path / "a.json").write_text('{"name": 1}')
    done = check(tmp_path, "true")

    assert 2 == done.returncode
    assert "a.json" in done.stderr


def test_a_wait_is_reached_when_all_of_it_is_true() -> None:
    """Numbers at least as great, the rest equal; the round stands for `$i`."""
    look = {"state": {"n": 3, "mood": "calm"}, "status": "online", "pending": 0}

    assert reached(Step(wait="a", pending=0, status="online", state={"n": 2}), look, 0)
    assert not reached(Step(wait="a", state={"n": 4}), look, 0)
    assert not reached(Step(wait="a", state={"mood": "wild"}), look, 0)
    assert not reached(Step(wait="a", tokens=2), look, 1)
    assert [5, "x", {"x": [5]}] == with_round(["$i", "x", {"x": ["$i"]}], 5)


def test_a_wait_looks_at_version_events_and_what_devices_say() -> None:
    """Exactly those; None is a device that says nothing, or is not there."""
    look = {"state": {}, "status": "online", "pending": 0, "version": 2, "events": ["lost"]}
    look |= {"me": {"a": {"x": 1}, "b": {}}}

    assert reached(Step(wait="a", version=2, event="lost"), look, 0)
    assert reached(Step(wait="a", me={"a": {"x": 1}, "b": None, "c": None}), look, 0)
    assert not reached(Step(wait="a", version=1), look, 0)
    assert not reached(Step(wait="a", event="reset"), look, 0)
    assert not reached(Step(wait="a", me={"a": None}), look, 0)
    assert not reached(Step(wait="a", me={"a": {"x": 2}}), look, 0)


async def test_a_proxy_holds_what_comes_and_hands_it_over_at_once() -> None:
    """In order, and nothing of it is missing; nothing passes before."""
    heard: list[bytes] = []

    async def listen(stream: trio.SocketStream) -> None:
        async for data in stream:
            heard.append(data)

    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, listen, [listener])
        proxy = Proxy(listener.socket.getsockname()[1])
        await nursery.start(proxy.serve)
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            await stream.send_all(b"one")
            await until(lambda: heard == [b"one"])
            proxy.fault = "hold"
            await stream.send_all(b"two")
            await trio.testing.wait_all_tasks_blocked(0.05)
            await stream.send_all(b"three")
            held = list(heard)
            proxy.fault = "none"
            await until(lambda: b"".join(heard) == b"onetwothree")
        nursery.cancel_scope.cancel()

    assert [b"one"] == held


async def test_a_busy_proxy_answers_a_handshake_with_429() -> None:
    """With a time to wait, and the connection ends."""
    async with trio.open_nursery() as nursery:
        proxy = Proxy(1)
        proxy.fault = "busy"
        await nursery.start(proxy.serve)
        async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream:
            await stream.send_all(b"GET /ws HTTP/1.1\r\n\r\n")
            answer = b"".join([data async for data in stream])
        nursery.cancel_scope.cancel()

    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"\r\nRetry-After: 1\r\n" in answer


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_messages_are_counted_whatever_the_chunks(chunk: int) -> None:
    """Text and binary count, a ping does not; all three kinds of length."""
    mask = b"\0\0\0\0"
    sizes = [
        bytes([0x81, 0x80 | 5]) + mask + bytes(5),
        bytes([0x82, 0x80 | 126]) + (300).to_bytes(2) + mask + bytes(300),
        bytes([0x89, 0x80]) + mask,
        bytes([0x81, 0x80 | 127]) + (70_000).to_bytes(8) + mask + bytes(70_000),
    ]
    data = b"GET /ws HTTP/1.1\r\n\r\n" + b"".join(sizes)
    counter = FrameCounter()
    for start in range(0, len(data), chunk):
        counter.feed(data[start : start + chunk])

    assert 3 == counter.messages
