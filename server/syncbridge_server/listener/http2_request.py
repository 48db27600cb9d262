"""One request of an HTTP/2 connection: its task, its `receive` and `send`, and their deadlines.

Hypercorn gives an application a queue and may wait for ever: for an application that has returned
without reading its body, or for a body that never arrives. So here the queue ends with the
application, a body has the same time as in HTTP/1.1 (`fast/patience.py`; then 408), and an
application whose client is gone has GONE_SECONDS to notice before it is cancelled.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup

from syncbridge_server.listener.contract import KNOWN, Refusal
from syncbridge_server.listener.fast.limits import (
    BODY_TOO_LARGE,
    GONE_SECONDS,
    OVERLOADED,
    Refused,
)
from syncbridge_server.listener.fast.patience import Patience
from syncbridge_server.listener.http2_places import ConnectionPlaces, StreamOccupant
from syncbridge_server.listener.hypercorn import Site
from syncbridge_server.listener.response import NO_HEADERS, refusal_response

QUEUED_MESSAGES = 10
"""Pieces of a body that may wait for the application before reading stops."""

Message = MutableMapping[str, Any]
SendToStream = Callable[[Any], Awaitable[None]]

logger = logging.getLogger("syncbridge.http")


class RequestTasks(TaskGroup):
    """The tasks of one connection, in which each application runs as a `RunningRequest`.

    Args:
        reserved: the connection is in the reserve.

    Attributes:
        stream_id, refusal: of the next request, which is not served if refused; set before it
            arrives.
        places: the state of the connection's streams.
        occupants: the holder of each stream's place.
    """

    def __init__(self, site: Site, places: ConnectionPlaces, reserved: bool) -> None:
        super().__init__()
        self._site = site
        self.places = places
        self.reserved = reserved
        self.stream_id = 0
        self.refusal: Refusal | None = None
        self.occupants: dict[int, StreamOccupant] = {}

    async def spawn_app(
        self, app: Any, config: Config, scope: Any, send: SendToStream
    ) -> Callable[[Any], Awaitable[None]]:
        occupant = self.occupants[self.stream_id] = StreamOccupant(self.places, self.reserved)
        request = RunningRequest(self._site, occupant, send, self.refusal)
        self.spawn(self._run, request, self.stream_id, app, scope)
        return request.put

    async def _run(self, request: "RunningRequest", stream_id: int, app: Any, scope: Any) -> None:
        try:
            await request.run(app, scope)
        finally:
            self.occupants.pop(stream_id).end()


class RunningRequest:
    """See the top of this file.

    Args:
        occupant: holds the request's place.
        send: passes the application's messages to the stream; None ends them.
        refusal: sent instead of the application's answer.
    """

    def __init__(
        self,
        site: Site,
        occupant: StreamOccupant,
        send: SendToStream,
        refusal: Refusal | None = None,
    ) -> None:
        self._send = send
        self._refusal = refusal
        self._bounds = site.bounds
        self._origins = site.config.origins
        self._on_refused = site.config.on_refused
        self._peer = ""
        self._asked: Mapping[bytes, bytes] = NO_HEADERS
        self._occupant = occupant
        self._patience = Patience(site.config, self._occupant)
        self._room = site.config.max_body_bytes
        self._give, self._take = trio.open_memory_channel[Message](QUEUED_MESSAGES)
        self._scope = trio.CancelScope()
        self._whole = self._started = self._answered = self._refused = False

    async def run(self, app: Any, scope: Any) -> None:
        """Run the application to its end, and tell the stream."""
        self._asked = dict(scope["headers"])
        self._peer = scope["client"][0] if scope["client"] else "unix"
        scope[KNOWN] = self._occupant.belong
        try:
            with self._scope, self._take:
                if self._refusal is not None:
                    await self._refuse(self._refusal)
                elif self._is_admitted(scope):
                    await app(scope, self._receive, self._reply, None, None)
                else:
                    await self._refuse(OVERLOADED)
        except Exception:
            logger.exception("request failed")
        finally:
            self._occupant.leave_all()
            await self._send(None)

    def _is_admitted(self, scope: Any) -> bool:
        address = self._bounds.requester(self._occupant, self._peer, scope["headers"])
        method, target = scope["method"], scope["raw_path"]
        return self._bounds.admit(self._occupant, method, target, body=False, address=address)

    async def put(self, message: Message) -> None:
        """Queue a message for the application; waits while the queue is full and it runs."""
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
        """Count a piece of the body. Raises Refused."""
        size = len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._whole:
            self._occupant.work()
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
            self._answered = self._occupant.answered = True
        await self._send(message)

    async def _refuse(self, refusal: Refusal) -> None:
        """Answer instead of the application; if it has begun to answer, cut the stream off."""
        self._refused = self._occupant.answered = self._occupant.refused = True
        self._on_refused(refusal, self._peer, "http")
        self._hurry()
        if self._started:
            await self._send(None)
            return
        status, headers, body = refusal_response(refusal, self._asked, self._origins)
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def _hurry(self) -> None:
        deadline = trio.current_time() + GONE_SECONDS
        self._scope.deadline = min(self._scope.deadline, deadline)
