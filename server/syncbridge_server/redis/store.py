"""Sessions in Redis: `syncbridge.ports.Store` over the I/O thread and the scripts."""

import random
from collections.abc import Sequence
from typing import Any

from syncbridge.errors import StoreError
from syncbridge.limits import Limits
from syncbridge.ports import Answer, Deliver, Query, Request
from syncbridge_server.redis.client import RedisIO
from syncbridge_server.redis.codec import Settings, decode, encode
from syncbridge_server.redis.device_codec import decode_query, encode_query
from syncbridge_server.redis.pipeline import Command


class RedisStore:
    """Implements `syncbridge.ports.Store`.

    Args:
        io: running client.
        node: id of this node: its own commits are not published to it. No spaces.
        limits: caps and TTL that the scripts enforce.
    """

    def __init__(self, io: RedisIO, node: str, limits: Limits | None = None) -> None:
        self._io = io
        self._settings = Settings.of(node, limits or Limits())
        self._random = random.Random()  # noqa: S311 - epochs must differ, not be secret

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Send requests as one pipeline; `deliver` gets one answer or StoreError each, in order.

        Raises StoreOverloaded when the queue is full, ValueError for a write that names a key
        twice; nothing was sent then.
        """
        commands = [self._command(request) for request in requests]

        def decoded(replies: list[Any]) -> None:
            pairs = zip(replies, requests, strict=True)
            deliver([self._answer(reply, request) for reply, request in pairs])

        self._io.submit(commands, decoded)

    async def call(self, request: Request) -> Any:
        """One request; returns its answer type or raises StoreError."""
        reply = (await self._io.request([self._command(request)]))[0]
        answer = self._answer(reply, request)
        if isinstance(answer, StoreError):
            raise answer
        return answer

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
