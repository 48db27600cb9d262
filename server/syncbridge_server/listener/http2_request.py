"""One request of an HTTP/2 connection: its task, its `receive` and `send`, and their deadlines.

Hypercorn gives an application a queue and waits for it without an end: for an application that has
returned and left its body unread, and with a body that never comes. So here the queue ends with
the application, a body has the time that it has in HTTP/1.1 (`fast/patience.py`; then 408), and an
application whose client is gone has GONE_SECONDS to notice before it is cancelled.
"""

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup

from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.fast.limits import BODY_TOO_LARGE, GONE_SECONDS, Refused
from syncbridge_server.listener.fast.patience import Patience
from syncbridge_server.listener.response import refusal_response

QUEUED_MESSAGES = 10
"""Pieces of a body that wait for the application; then the connection is not read further."""

Message = MutableMapping[str, Any]
SendToStream = Callable[[Any], Awaitable[None]]

logger = logging.getLogger("syncbridge.http")


class RequestTasks(TaskGroup):
    """The tasks of one connection, in which each application runs as a `RunningRequest`."""

    def __init__(self, config: ListenerConfig) -> None:
        super().__init__()
        self._config = config

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: SendToStream
    ) -> Callable[[Any], Awaitable[None]]:
        request = RunningRequest(self._config, send)
        self.spawn(request.run, app, scope)
        return request.put


class RunningRequest:
    """See the top of this file.

    Args:
        send: takes the application's messages to the stream; None says that there are no more.
    """

    def __init__(self, config: ListenerConfig, send: SendToStream) -> None:
        self._send = send
        self._patience = Patience(config)
        self._room = config.max_body_bytes
        self._give, self._take = trio.open_memory_channel[Message](QUEUED_MESSAGES)
        self._scope = trio.CancelScope()
        self._whole = self._started = self._answered = self._refused = False

    async def run(self, app: Any, scope: Any) -> None:
        """Run the application to its end, and tell the stream."""
        try:
            with self._scope, self._take:
                await app(scope, self._receive, self._reply, None, None)
        except Exception:
            logger.exception("request failed")
        finally:
            await self._send(None)

    async def put(self, message: Message) -> None:
        """Take a message for the application; waits while it does not ask, and while it runs."""
        if message["type"] == "http.disconnect" and not self._answered:
            self._hurry()
        try:
            await self._give.send(message)
        except trio.BrokenResourceError:
            pass  # the application has returned

    async def _receive(self) -> Message:
        if self._refused:
            await trio.lowlevel.checkpoint()
            return {"type": "http.disconnect"}
        if self._whole:
            return await self._take.receive()
        try:
            message = await self._patience.wait(self._take.receive)
            self._count(message)
        except Refused as refused:
            await self._refuse(refused.refusal)
            return {"type": "http.disconnect"}
        return message

    def _count(self, message: Message) -> None:
        """Account for a piece of the body. Raises Refused."""
        size = len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        self._patience.earn(size)
        self._room -= size
        if self._room < 0:
            raise Refused(BODY_TOO_LARGE)

    async def _reply(self, message: Message) -> None:
        if self._refused:
            await trio.lowlevel.checkpoint()
            return
        if message["type"] == "http.response.start":
            self._started = True
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        await self._send(message)

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer instead of the application; when it has begun to, the stream is cut off."""
        self._refused = True
        self._hurry()
        if self._started:
            await self._send(None)
            return
        status, headers, body = refusal_response(refusal)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _hurry(self) -> None:
        deadline = trio.current_time() + GONE_SECONDS
        self._scope.deadline = min(self._scope.deadline, deadline)
