"""Sessions in Redis: `syncbridge.ports.Store` over the I/O thread and the scripts."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import trio

from syncbridge.errors import StoreError
from syncbridge.limits import Limits
from syncbridge.ports import Answer, Deliver, Outcome, Query, Request, Welcome
from syncbridge_server.redis.client import RedisIO
from syncbridge_server.redis.codec import Settings, decode, encode
from syncbridge_server.redis.cold import ColdIndex
from syncbridge_server.redis.device_codec import decode_query, encode_query
from syncbridge_server.redis.pipeline import Command
from syncbridge_server.redis.thawing import Thawing, session_of

UNPACKED_SPARE = 16_777_216
"""Bytes that a packed state may have beyond its values: keys, versions, deleted keys."""


class RedisStore:
    """Implements `syncbridge.ports.Store`.

    Args:
        io: running client.
        node: id of this node: its own commits are not published to it. No spaces.
        limits: caps and TTL that the scripts enforce.
        freeze_after: seconds without use after which a session may be packed, see `freezer`;
            0 when nobody does that. Sessions that are packed are unpacked in any case.
    """

    def __init__(
        self,
        io: RedisIO,
        node: str,
        limits: Limits | None = None,
        freeze_after: float = 0.0,
    ) -> None:
        self._io = io
        self._settings = Settings.of(node, limits or Limits())
        self._index = ColdIndex(io, round(freeze_after * 1000)) if freeze_after else None
        self._thawing = Thawing(
            io,
            self._command,
            most_bytes=4 * self._settings.state_bytes + UNPACKED_SPARE,
            on_thaw=self._thawed,
        )
        self._random = random.Random()  # noqa: S311 - epochs must differ, not be secret

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Send requests as one pipeline; `deliver` gets one answer or StoreError each, in order.

        Raises StoreOverloaded when the queue is full, ValueError for a write that names a key
        twice; nothing was sent then.
        """

        def decoded(replies: list[Any]) -> None:
            pairs = zip(replies, requests, strict=True)
            answers = [self._answer(reply, request) for reply, request in pairs]
            if self._index is not None:
                self._enter(self._index, requests, answers)
            deliver(answers)

        self._thawing.submit(requests, decoded)

    async def call(self, request: Request) -> Any:
        """One request; returns its answer type or raises StoreError."""
        done = trio.Event()
        answers: list[Answer | StoreError] = []

        def deliver(delivered: Sequence[Answer | StoreError]) -> None:
            answers.extend(delivered)
            done.set()

        self.submit([request], deliver)
        await done.wait()
        if isinstance(answers[0], StoreError):
            raise answers[0]
        return answers[0]

    @property
    def thawed(self) -> int:
        """Sessions that were unpacked here since the start."""
        return self._thawing.thawed

    def _enter(
        self,
        index: ColdIndex,
        requests: Sequence[Request],
        answers: Sequence[Answer | StoreError],
    ) -> None:
        """Enter sessions that were changed or joined into the index of those that may get cold."""
        for request, answer in zip(requests, answers, strict=True):
            if isinstance(answer, Outcome):
                if answer.created:
                    index.enter([session_of(request)])
                elif answer.version != answer.prev_version:
                    index.note(session_of(request))
            elif isinstance(answer, Welcome) and answer.version:
                index.note(session_of(request))
        index.flush()

    def _thawed(self, sids: Iterable[str]) -> None:
        if self._index is not None:
            self._index.enter(sids)
            self._index.flush()

    def _command(self, request: Request) -> Command:
        if isinstance(request, Query):
            call = encode_query(request, self._settings)
        else:
            call = encode(request, self._settings, self._new_epoch)
        return self._io.script_command(
            call.script, call.keys, call.args, repeatable=call.repeatable
        )

    def _answer(self, reply: Any, request: Request) -> Answer | StoreError:
        if isinstance(reply, StoreError):
            return reply
        if isinstance(request, Query):
            return decode_query(reply, request)
        return decode(reply, request, self._settings)

    def _new_epoch(self) -> str:
        return f"{self._random.getrandbits(48):012x}"
