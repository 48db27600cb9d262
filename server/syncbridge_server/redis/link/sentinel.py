"""Asks the sentinels for the primary of a service.

Theory of operation. Each failover has a number, the configuration epoch, which only the leader that
a majority of sentinels elected can raise. All sentinels are asked at once, and the answer with the
highest epoch wins: so a sentinel that missed a failover cannot send us back to the old primary. A
dead sentinel delays the answer by at most `SENTINEL_SECONDS` a step. The connecting code checks
whether the server considers itself a primary.
"""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hiredis
from redis.connection import Connection

from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import WireBroken, open_wire, pack

SENTINEL_SECONDS = 0.5


class Sentinels:
    """The sentinels of one service. May be used by several threads.

    Args:
        addresses: of the sentinels; those that they know besides are not asked.
        make: class of connections.
        options: of connections to sentinels.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        service: str,
        make: type[Connection],
        options: dict[str, Any],
    ) -> None:
        self._addresses = addresses
        self._service = service
        self._make = make
        self._options = {
            **options,
            "socket_timeout": SENTINEL_SECONDS,
            "socket_connect_timeout": SENTINEL_SECONDS,
        }

    def primary(self) -> Address:
        """Ask all; raises WireBroken when none of them knows the service."""
        with ThreadPoolExecutor(len(self._addresses), "redis-sentinel") as pool:
            answers = list(pool.map(self._ask, self._addresses))
        found = Counter(answer for answer in answers if not isinstance(answer, str))
        if not found:
            raise WireBroken(f"no sentinel reports the primary: {answers[0]}", sent=False)
        return max(found, key=lambda answer: (answer[0], found[answer]))[1]

    def _ask(self, sentinel: Address) -> tuple[int, Address] | str:
        """Epoch and address of the primary, or why there is no answer."""
        try:
            place = {"host": sentinel.host, "port": sentinel.port}
            wire = open_wire(self._make, {**self._options, **place})
        except WireBroken as broken:
            return broken.reason
        replies: list[Any] = []
        try:
            deadline = time.monotonic() + SENTINEL_SECONDS
            wire.exchange(self._questions(), replies, deadline)
            return _read(replies)
        except WireBroken as broken:
            return broken.reason
        finally:
            wire.close()

    def _questions(self) -> list[bytes]:
        # While a failover ends, its leader tells the new address with the second command alone.
        return [
            pack("SENTINEL", "MASTER", self._service),
            pack("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
        ]


def _read(replies: Sequence[Any]) -> tuple[int, Address] | str:
    state, address = replies
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            return str(reply).partition(" ")[2] or str(reply)
    if not isinstance(address, list):
        return "No such master with that name"
    fields = dict(zip(state[::2], state[1::2], strict=True))
    epoch = int(fields.get(b"config-epoch", 0))
    return epoch, Address(address[0].decode(), int(address[1]))
