"""The Python client under `syncbridge client-check`: commands on stdin, answers on stdout."""

import json
import sys
from collections import deque
from contextlib import AsyncExitStack
from typing import Any

import anyio

from syncbridge_client import ClientError, Lost, ServerError, Session, connect

SLOW_COMMANDS = 100
"""Lines that may wait."""


class Driver:
    """One device. `group`: of the tasks that listen."""

    def __init__(self, stack: AsyncExitStack, group: anyio.abc.TaskGroup) -> None:
        self._stack = stack
        self._group = group
        self._session: Session | None = None
        self._events: list[str] = []
        self._lost: list[Lost] = []
        self._waiting: deque[tuple[anyio.Event, list[str]]] = deque()

    async def token(self) -> str:
        """Ask the checker for a token."""
        told, box = anyio.Event(), list[str]()
        self._waiting.append((told, box))
        say({"ask": "token"})
        await told.wait()
        return box[0]

    def told(self, token: str) -> None:
        """The checker's answer."""
        event, box = self._waiting.popleft()
        box.append(token)
        event.set()

    async def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command."""
        match message["do"]:
            case "connect":
                await self._connect(message["url"], message["device_id"])
            case "look":
                return self._look()
            case "close":
                await self._stack.aclose()
            case "say":
                await self._open.say(**message["args"][0])
            case "resend":
                for lost in self._lost:
                    await self._open.resend(lost)
            case name:
                await getattr(self._open, name)(*message["args"])
        return {}

    async def _connect(self, url: str, device_id: str) -> None:
        options = {"start_timeout": 0, "connect_timeout": 3, "close_timeout": 0}
        options |= {"ack_timeout": 2, "backoff_cap": 1}
        entered = connect(url, token=self.token, device_id=device_id, **options)
        self._session = await self._stack.enter_async_context(entered)
        self._group.start_soon(self._listen, self._session)

    async def _listen(self, session: Session) -> None:
        async for event in session.events():
            told = event.code if isinstance(event, ServerError) else type(event).__name__.lower()
            self._events.append(told)
            if isinstance(event, Lost):
                self._lost.append(event)

    @property
    def _open(self) -> Session:
        assert self._session is not None
        return self._session

    def _look(self) -> dict[str, Any]:
        session = self._open
        return {
            "state": dict(session.state),
            "status": session.status.name.lower(),
            "version": session.version,
            "pending": len(session.pending),
            "events": self._events,
            "me": {one.device_id: dict(one.me) for one in session.devices},
        }


def say(message: dict[str, Any]) -> None:
    """One line for the checker."""
    print(json.dumps(message), flush=True)


async def read(lines: anyio.abc.ObjectSendStream[dict[str, Any]], driver: Driver) -> None:
    """Tokens at once, commands in order."""
    async with lines:
        async for line in anyio.wrap_file(sys.stdin):
            message = json.loads(line)
            if "token" in message:
                driver.told(message["token"])
            else:
                await lines.send(message)


async def main() -> None:
    """Until stdin ends."""
    send, receive = anyio.create_memory_object_stream[dict[str, Any]](SLOW_COMMANDS)
    async with anyio.create_task_group() as group, AsyncExitStack() as stack, receive:
        driver = Driver(stack, group)
        group.start_soon(read, send, driver)
        async for message in receive:
            try:
                say({"id": message["id"], "ok": True, **await driver.answer(message)})
            except ClientError as error:
                say({"id": message["id"], "ok": False, "code": getattr(error, "code", str(error))})
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main)
