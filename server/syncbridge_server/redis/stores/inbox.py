"""Webhooks in Redis: `WebhookInbox` and `DeadLetters` of `syncbridge_server.ports.channels`.

Theory of operation. A stream with one consumer group holds the deliveries that wait or that a node
has taken. An entry is deleted when it has taken effect, so the stream's length is the number of
pending deliveries, and a recreated group begins at the first entry and loses nothing. Another node
claims an unfinished delivery once it has been idle for long enough; Redis counts the deliveries.

A sorted set beside the stream holds digests of delivery ids, by time. The script that adds an entry
reads and writes it, so a delivery is kept once however often it is sent, until its digest is older
than `ids_ms` or is evicted.

A notice on the common channel announces arrivals: one, until some node has read the stream to its
end, or for at most `TOLD_MS`. A burst costs few notices, and an arrival after a node saw the end is
always announced.

Dead letters are another stream. It has webhooks, which wait again when replayed, and records on
which a background task failed (`k` the kind, `n` the name); the owner of that kind replays and
discards those.

All keys have one hash tag: the inbox is one slot of a cluster.
"""

import math
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b

from syncbridge.errors import ErrorCode, StoreOverloaded, SyncBridgeError
from syncbridge.records.sessions import Notice
from syncbridge.voice.stored import DeadLetter, WebhookDelivery
from syncbridge_server.isolation import Aside
from syncbridge_server.ports.store import Bus
from syncbridge_server.redis.bus.messages import common_channel, encode_notice
from syncbridge_server.redis.link.client import RedisIO

WAITING = "inbox:{inbox}:w"
SEEN = "inbox:{inbox}:seen"
TOLD = "inbox:{inbox}:told"
DEAD = "inbox:{inbox}:dead"
GROUP = "nodes"
ARRIVAL = "inbox"
"""Kind of the notices of arrivals."""
TOLD_MS = 1_000
TAKER_IDLE_MS = 3_600_000
REASON_MOST = 200
DAY_MS = 86_400_000
_PART_MOST = 2**64

Argument = bytes | str | int


class RedisInbox:
    """Implements `WebhookInbox` and `DeadLetters` of `syncbridge_server.ports.channels`.

    Args:
        io: running client. bus: announces arrivals. node: id of this node, its consumer name.
            most_waiting: most pending deliveries. most_dead: most dead letters; the oldest are
            dropped. ids_ms: how long, in ms, a delivery's id is remembered to detect repetitions.
            most_ids: most remembered ids; the oldest are dropped.
    """

    def __init__(
        self,
        io: RedisIO,
        bus: Bus,
        node: str,
        *,
        most_waiting: int = 100_000,
        most_dead: int = 10_000,
        ids_ms: int = 3 * DAY_MS,
        most_ids: int = 500_000,
    ) -> None:
        self._io = io
        self._bus = bus
        self._node = node
        self._most_waiting = most_waiting
        self._most_dead = most_dead
        self._ids_ms = ids_ms
        self._most_ids = most_ids
        self._asides: dict[str, Aside] = {}
        self._tidy_at = -math.inf

    async def put(self, delivery: WebhookDelivery) -> bool:
        """See `WebhookInbox.put`."""
        args: list[Argument] = [
            blake2b(delivery.delivery_id.encode(), digest_size=16).digest(),
            delivery.delivery_id,
            delivery.received_at,
            delivery.body,
            self._most_waiting,
            self._ids_ms,
            self._most_ids,
            *self._tidings(),
            delivery.reason[:REASON_MOST],
            delivery.trace,
        ]
        kept = await self._io.script("inbox_put", [WAITING, SEEN, TOLD], args, repeatable=True)
        return self._has_room(kept)

    async def take(self, limit: int, idle_ms: int) -> list[WebhookDelivery]:
        """See `WebhookInbox.take`. O(limit + deliveries that are taken).

        If nothing waits, it is one plain command; the script, which also removes idle consumers,
        then runs once in `TAKER_IDLE_MS`.
        """
        now = time.monotonic()
        if limit <= 0 or (now < self._tidy_at and not await self.waiting()):
            return []
        self._tidy_at = now + TAKER_IDLE_MS / 1000
        args: list[Argument] = [GROUP, self._node, limit, idle_ms, TAKER_IDLE_MS]
        # Sent twice, it takes others; the first ones wait until they count as idle.
        flat = await self._io.script("inbox_take", [WAITING, TOLD], args, repeatable=True)
        entries = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        return [delivery_of(entry, times, fields) for entry, times, fields in entries]

    async def done(self, deliveries: Sequence[WebhookDelivery]) -> None:
        """See `WebhookInbox.done`."""
        if deliveries:
            args = [GROUP, *(delivery.entry for delivery in deliveries)]
            await self._io.script("inbox_done", [WAITING], args, repeatable=True)

    async def bury(self, delivery: WebhookDelivery, reason: str) -> None:
        """See `WebhookInbox.bury`. Nothing happens when another node has finished with it."""
        args: list[Argument] = [GROUP, delivery.entry, reason[:REASON_MOST], self._most_dead]
        await self._io.script("inbox_bury", [WAITING, DEAD], args, repeatable=True)

    async def dead(self, limit: int, cursor: str = "") -> tuple[list[DeadLetter], str]:
        """See `WebhookInbox.dead`. Raises INVALID_FIELD for an invalid cursor."""
        if cursor and not is_entry(cursor):
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                "cursor: expected the next_cursor of a page",
                field="cursor",
            )
        start, most = f"({cursor}" if cursor else "+", max(limit, 1)
        found = await self._io.execute("XREVRANGE", DEAD, start, "-", "COUNT", most + 1)
        letters = [letter_of(entry, fields) for entry, fields in found[:most]]
        return letters, letters[-1].entry if len(found) > most else ""

    async def replay(self, entry: str) -> bool:
        """See `WebhookInbox.replay`. Raises StoreOverloaded when too many wait."""
        letter = await self._letter(entry)
        if letter is None:
            return False
        if letter.kind:
            await self._aside_of(letter).replay(letter.record)
            return await self._forget(entry)
        args: list[Argument] = [entry, self._most_waiting, *self._tidings()]
        # Not repeatable: the second answer would say that there is no such letter.
        return self._has_room(await self._io.script("inbox_replay", [WAITING, TOLD, DEAD], args))

    async def discard(self, entry: str) -> bool:
        """See `WebhookInbox.discard`."""
        letter = await self._letter(entry)
        if letter is None:
            return False
        if letter.kind:
            await self._aside_of(letter).discard(letter.record)
        return await self._forget(entry)

    def register(self, aside: Aside) -> None:
        """Let `aside` replay and discard letters of its kind."""
        self._asides[aside.kind] = aside

    async def keep(self, kind: str, record: str, reason: str, body: bytes = b"") -> None:
        """Keep a dead letter of a record. Raises StoreError."""
        told = ("i", f"{kind}:{record}", "b", body, "r", reason[:REASON_MOST])
        limit = ("MAXLEN", self._most_dead)
        await self._io.execute("XADD", DEAD, *limit, "*", *told, "k", kind, "n", record)
        if self._io.scripts.telling:
            about = ("k", "dead_letter.kept", "i", kind, "n", record, "r", reason[:REASON_MOST])
            await self._io.script("event_put", ["e:{inbox}"], [0, *about])

    async def _letter(self, entry: str) -> DeadLetter | None:
        if not is_entry(entry):
            return None
        found = await self._io.execute("XRANGE", DEAD, entry, entry)
        return letter_of(*found[0]) if found else None

    async def _forget(self, entry: str) -> bool:
        return bool(await self._io.execute("XDEL", DEAD, entry))

    def _aside_of(self, letter: DeadLetter) -> Aside:
        """The handler of a kind. Raises UNSUPPORTED for one that this server does not process."""
        aside = self._asides.get(letter.kind)
        if aside is None:
            raise SyncBridgeError(
                ErrorCode.UNSUPPORTED, f"this server does not process records of kind {letter.kind}"
            )
        return aside

    async def waiting(self) -> int:
        """See `WebhookInbox.waiting`."""
        waiting: int = await self._io.execute("XLEN", WAITING)
        return waiting

    def on_arrival(self, handler: Callable[[], None]) -> None:
        """See `WebhookInbox.on_arrival`. Also called when a notice may have been lost."""
        self._bus.on_notice(ARRIVAL, lambda _: handler())
        self._bus.on_resync(handler)

    def _tidings(self) -> list[Argument]:
        """Channel, text and interval in ms of the notice of arrivals."""
        payload = encode_notice(Notice(ARRIVAL, "", b""))
        return [common_channel("inbox", self._io.endpoint.database), payload, TOLD_MS]

    def _has_room(self, answer: int) -> bool:
        if answer < 0:
            raise StoreOverloaded(f"more than {self._most_waiting} webhooks wait", 5.0)
        return bool(answer)


def is_entry(text: str) -> bool:
    """Whether it can be the id of an entry of a Redis stream; none has 0-0."""
    parts = text.split("-")
    if len(parts) != 2 or not all(p.isascii() and p.isdigit() and len(p) <= 20 for p in parts):
        return False
    ms, number = map(int, parts)
    return max(ms, number) < _PART_MOST and ms + number > 0


def delivery_of(entry: bytes, times: int, fields: Sequence[bytes]) -> WebhookDelivery:
    """Decode a delivery. Missing parts are empty; the reader makes it a dead letter."""
    delivery_id, received_at, body, reason = _parts(fields)
    trace = _fields(fields).get(b"p", b"").decode("ascii", "replace")
    return WebhookDelivery(delivery_id, body, received_at, entry.decode(), times, reason, trace)


def letter_of(entry: bytes, fields: Sequence[bytes]) -> DeadLetter:
    """Decode a dead letter; its entry id begins with the time of its creation."""
    delivery_id, received_at, body, reason = _parts(fields)
    name = entry.decode()
    failed_at, held = int(name.partition("-")[0]), _fields(fields)
    kind = held.get(b"k", b"").decode(errors="replace")
    record = held.get(b"n", b"").decode(errors="surrogateescape")
    received_at = failed_at if kind else received_at
    return DeadLetter(name, delivery_id, received_at, failed_at, reason, body, kind, record)


def _fields(fields: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def _parts(fields: Sequence[bytes]) -> tuple[str, int, bytes, str]:
    held = _fields(fields)
    at = held.get(b"t", b"")
    return (
        held.get(b"i", b"").decode(errors="replace"),
        int(at) if at.isdigit() and len(at) < 16 else 0,
        held.get(b"b", b""),
        held.get(b"r", b"").decode(errors="replace"),
    )
