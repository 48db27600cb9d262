"""`syncbridge tail`: the life of a session as lines, without what its user wrote."""

import json
import os
import sys

import pytest
import trio
import trio.testing
import typer
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, TextMessage

from support.server_kit import mint, new_session, running_node
from support.voice.command_kit import use_secrets
from support.ws_client import Device
from syncbridge_server.commands.tail import Socket, follow, line_of

SECONDS = 30.0


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    use_secrets(monkeypatch)


async def tail(
    url: str, *arguments: str, task_status: trio.TaskStatus[trio.Process] = trio.TASK_STATUS_IGNORED
) -> list[str]:
    """Lines of the command in a process of its own; its end is awaited."""
    command = [sys.executable, "-m", "syncbridge_server", "tail", "--url", url, *arguments]
    process = await trio.lowlevel.open_process(command, stdout=-1, stderr=-1, env=dict(os.environ))
    task_status.started(process)
    output = bytearray()
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(SECONDS):
        async with process.stdout, process.stderr:
            async for chunk in process.stdout:
                output += chunk
            async for chunk in process.stderr:
                output += chunk
        await process.wait()
    return [*output.decode().splitlines(), f"exit {process.returncode}"]


async def test_the_life_of_a_session(redis_url: str) -> None:
    """Who is there, who comes, what is written where and by whom; the user sees the guest."""
    session = new_session()
    lines: list[str] = []

    async def follow(url: str) -> None:
        lines.extend(await tail(url, session, "--count", "4"))

    async with running_node(redis_url) as node, await Device.open(node.port) as laptop:
        await laptop.auth(mint("ann"), "laptop", session_id=session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow, node.url)
            guest = await laptop.receive(10)
            await laptop.set("mood", "a secret of ann")
            async with await Device.open(node.port) as phone:
                await phone.auth(mint("ann"), "phone", session_id=session)

    assert guest["payload"]["device_type"] == "support"
    assert "auth_success" in lines[0]
    assert "devices=" in lines[0]
    assert "laptop" in lines[0]
    assert "state_update" in lines[1]
    assert "by=laptop" in lines[1]
    assert "changes=mood" in lines[1]
    assert "device_joined" in lines[2]
    assert "device_id=phone" in lines[2]
    assert "device_left" in lines[3]
    assert "exit 0" == lines[4]
    assert "secret" not in "".join(lines)


async def test_what_it_cannot_do(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody there, no session id, a token that may not: one line and exit code 1."""
    async with running_node(redis_url) as node:
        async with await Device.open(node.port) as laptop:
            session = new_session()
            await laptop.auth(mint("ann"), "laptop", session_id=session)
            bad = await tail(node.url, "x")
            monkeypatch.setenv("SYNCBRIDGE_TOKEN", mint("bob"))
            other = await tail(node.url, session)
    away = await tail("http://127.0.0.1:1", session)

    assert [["exit 1"]] * 3 == [lines[1:] for lines in (bad, other, away)]
    assert "must be a UUID" in bad[0]
    assert "refused: this session belongs to another user" in other[0]
    assert "nothing answers at http://127.0.0.1" in away[0]


async def test_a_server_that_falls_silent(
    autojump_clock: trio.testing.MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its pings are missing: the command ends, before an answer to AUTH and long after one."""
    seen = []
    for answers in (0, 2):
        ours, theirs = trio.testing.memory_stream_pair()
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(silent_after, theirs, answers)
            socket = await Socket.open(ours, "http://h")
            with pytest.raises(typer.Exit):
                await follow(socket, False, False, 0)
            nursery.cancel_scope.cancel()
        seen.append((round(trio.current_time() - began), socket.ended))
    told = capsys.readouterr()

    assert [(10, "nothing came for 10 s"), (145, "nothing came for 75 s")] == seen
    assert "syncbridge tail: the socket was closed: nothing came for 75 s\n" in told.err


async def silent_after(stream: trio.abc.Stream, answers: int) -> None:
    """A server that takes the socket, and says something every 70 s until it has said enough."""
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(bytes(await stream.receive_some()))
    await stream.send_all(server.send(AcceptConnection()))
    for _ in range(answers):
        message = {"type": 8, "payload": {"heartbeat_interval_ms": 25_000}}
        await stream.send_all(server.send(TextMessage(data=json.dumps(message))))
        await trio.sleep(70)
    await trio.sleep_forever()


def test_a_line_obeys_nobody() -> None:
    """Control characters are shown as ?; values only when asked for."""
    message = {"type": 5, "device_id": "a\x1b[2J", "payload": {"version": 3, "changes": {"k": "v"}}}

    assert line_of(message, False, 0.0).endswith(" state_update       by=a?[2J version=3 changes=k")
    assert line_of(message, True, 0.0).endswith(f"changes={json.dumps({'k': 'v'})}")
