"""Renews what this node holds in Redis: the presence of its devices and its own registration.

Every session with devices here is touched four times in a presence timeout, a few at a time. The
answer carries the session's place in its history, so a lost message between nodes is noticed and
mended within that time even when nothing else happens. It also names the devices that the store
does not have here any more: a node that stood still for longer than a lease finds them swept, and
registers them again.
"""

from collections.abc import Iterator

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.records.devices import Index, bucket_of
from syncbridge.records.sessions import Lost, Touch, Touched
from syncbridge_server.gateway.connection import LocalSession
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.departures import Departures
from syncbridge_server.gateway.fanout import Fanout
from syncbridge_server.gateway.joining import Joining, ignore
from syncbridge_server.gateway.registry import Registry
from syncbridge_server.gateway.users import UserIndex

log = structlog.get_logger("gateway")

CHUNK = 256


class Presence:
    """Touches sessions; `timeout` is the presence lease in seconds."""

    def __init__(
        self,
        registry: Registry,
        courier: Courier,
        fanout: Fanout,
        joining: Joining,
        departures: Departures,
        users: UserIndex,
        *,
        node: str,
        timeout: int,
    ) -> None:
        self._registry = registry
        self._courier = courier
        self._fanout = fanout
        self._joining = joining
        self._departures = departures
        self._users = users
        self._node = node
        self._timeout_ms = timeout * 1000
        self._period = timeout / 4

    async def run(self) -> None:
        """Touch all sessions once a period, for ever."""
        while True:
            chunks = list(self._chunks())
            for chunk in chunks:
                self._touch(chunk)
                await trio.sleep(self._period / len(chunks))
            if not chunks:
                await trio.sleep(self._period)

    def touch_all(self) -> None:
        """Touch and verify every session now: messages may have been lost."""
        self._departures.unsure.update(self._registry.sessions)
        for chunk in self._chunks():
            self._touch(chunk)

    def _chunks(self) -> Iterator[list[LocalSession]]:
        sessions = list(self._registry.sessions.values())
        for start in range(0, len(sessions), CHUNK):
            yield sessions[start : start + CHUNK]

    def _touch(self, sessions: list[LocalSession]) -> None:
        buckets: dict[int, list[str]] = {}
        for session in sessions:
            if session.devices:
                pairs = [(name, connection.id) for name, connection in session.devices.items()]
                request = Touch(session.id, self._node, pairs, self._timeout_ms)
                self._courier.ask(request, self._touched, session)
                buckets.setdefault(bucket_of(session.id), []).append(session.id)
                self._users.seen(session.owner, session.id)
                if session.id in self._departures.unsure:
                    self._departures.verify(session)
        for bucket, sids in buckets.items():
            self._courier.ask(Index(bucket, sids, self._timeout_ms), ignore)
        self._courier.dispatch()

    def _touched(self, answer: Touched | StoreError, session: LocalSession) -> None:
        if isinstance(answer, Touched):
            self._fanout.compare(session, answer)
            for lost in answer.lost:
                self._settle(session, lost)
        else:
            log.debug("Touch Failed", detail=answer.detail)

    def _settle(self, session: LocalSession, lost: Lost) -> None:
        """A device is connected here, and the store has it elsewhere or nowhere."""
        connection = session.devices.get(lost.device_id)
        if connection is None or connection.released:
            return
        if lost.node or lost.barred > connection.fence:
            # Somebody has told us why, and the message was lost.
            connection.released = not lost.node
            self._departures.verify(session)
        else:
            self._joining.rejoin(connection)
