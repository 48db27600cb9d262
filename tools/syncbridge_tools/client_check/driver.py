"""A client under test: a process with commands on stdin and answers on stdout, as JSON lines.

The checker writes `{"id", "do", …}`, the client answers `{"id", "ok", …}`; it may ask for a token
by `{"ask": "token"}` at any time, and gets `{"token"}`.
"""

import json
import signal
from collections.abc import Callable, Sequence
from subprocess import PIPE
from typing import Any

import trio

ANSWER_SECONDS = 60.0
MAX_LINE = 16 * 1_048_576


class DriverFailed(Exception):
    """The client gave no answer, or an invalid one."""


class Driver:
    """One device. `command`: of its process; `mint`: makes a token."""

    def __init__(self, command: Sequence[str], mint: Callable[[], str]) -> None:
        self.tokens = 0
        self._command = command
        self._mint = mint
        self._process: trio.Process | None = None
        self._answers: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Condition()
        self._writing = trio.Lock()
        self._count = 0
        self._over = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Run until cancelled, then end the process."""
        self._process = await trio.lowlevel.open_process(self._command, stdin=PIPE, stdout=PIPE)
        try:
            task_status.started()
            await self._read()
        finally:
            self._process.kill()
            with trio.CancelScope(shield=True):
                await self._process.wait()

    def freeze(self) -> None:
        """Stop the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    async def ask(self, do: str, **members: Any) -> dict[str, Any]:
        """Send a command; returns its answer. Raises DriverFailed."""
        self._count += 1
        number = self._count
        await self._write({"id": number, "do": do, **members})
        with trio.move_on_after(ANSWER_SECONDS):
            async with self._arrived:
                while number not in self._answers and not self._over:
                    await self._arrived.wait()
        answer = self._answers.pop(number, None)
        if answer is None:
            raise DriverFailed(f"the client does not answer {do}")
        return answer

    async def _write(self, message: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            async with self._writing:
                await self._process.stdin.send_all(json.dumps(message).encode() + b"\n")
        except trio.BrokenResourceError:
            raise DriverFailed("the client has ended") from None

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        data = b""
        async for chunk in self._process.stdout:
            *lines, data = (data + chunk).split(b"\n")
            for line in lines:
                await self._take(line)
            if len(data) > MAX_LINE:
                raise DriverFailed("a line that does not end")
        self._over = True
        async with self._arrived:
            self._arrived.notify_all()

    async def _take(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            raise DriverFailed(f"not JSON: {line[:80]!r}") from None
        if message.get("ask") == "token":
            self.tokens += 1
            await self._write({"token": self._mint()})
            return
        async with self._arrived:
            self._answers[message.get("id")] = message
            self._arrived.notify_all()
