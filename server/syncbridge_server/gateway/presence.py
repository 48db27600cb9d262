"""Renews what this node holds in Redis: the presence of its devices and its own registration.

Every session with devices here is touched four times in a presence timeout, a few at a time. The
answer carries the session's place in its history, so a lost message between nodes is noticed and
mended within that time even when nothing else happens.
"""

from collections.abc import Iterator

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.ports import Touch, Touched
from syncbridge_server.gateway.connection import LocalSession
from syncbridge_server.gateway.courier import Courier
from syncbridge_server.gateway.fanout import Fanout
from syncbridge_server.gateway.registry import Registry

log = structlog.get_logger("gateway")

CHUNK = 256


class Presence:
    """Touches sessions; `timeout` is the presence lease in seconds."""

    def __init__(
        self, registry: Registry, courier: Courier, fanout: Fanout, *, node: str, timeout: int
    ) -> None:
        self._registry = registry
        self._courier = courier
        self._fanout = fanout
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
        """Touch every session now: messages may have been lost."""
        for chunk in self._chunks():
            self._touch(chunk)

    def _chunks(self) -> Iterator[list[LocalSession]]:
        sessions = list(self._registry.sessions.values())
        for start in range(0, len(sessions), CHUNK):
            yield sessions[start : start + CHUNK]

    def _touch(self, sessions: list[LocalSession]) -> None:
        for session in sessions:
            if session.devices:
                request = Touch(session.id, self._node, list(session.devices), self._timeout_ms)
                self._courier.ask(request, self._touched, session)
        self._courier.dispatch()

    def _touched(self, answer: Touched | StoreError, session: LocalSession) -> None:
        if isinstance(answer, Touched):
            self._fanout.compare(session, answer)
        else:
            log.debug("Touch Failed", detail=answer.detail)
