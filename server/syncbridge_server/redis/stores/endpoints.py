"""Endpoints in Redis: `syncbridge_server.ports.endpoints.EndpointStore`.

`ev:{events}:endpoints` lists them; each has its own keys, see `_key`. Moving an event between keys
writes first, then deletes: a process that dies in between leaves it twice, with one id.
"""

from collections.abc import Sequence

import msgspec
import structlog

from syncbridge.events.delivery import HELD_MOST, Item
from syncbridge.events.endpoints import Endpoint
from syncbridge.events.kinds import EndpointDisabled
from syncbridge_server.ports.endpoints import LETTERS_MOST, Letter, Status
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.stores.events import ENDPOINTS, OWN_TAG, outbox

log = structlog.get_logger("events")

PART = 256
REASON_MOST = 200
_decode = msgspec.json.Decoder(Endpoint).decode


def _key(endpoint_id: str, letter: str) -> str:
    """`s` HASH how it goes, `h` STREAM held events, `a` HASH their attempts, `d` STREAM dead."""
    return f"ev:{{events}}:{letter}:{endpoint_id}"


class RedisEndpoints:
    """Implements `syncbridge_server.ports.endpoints.EndpointStore`."""

    def __init__(self, io: RedisIO) -> None:
        self._io = io

    async def endpoints(self) -> list[Endpoint]:
        """See `EndpointStore.endpoints`."""
        texts = await self._io.execute("HVALS", ENDPOINTS)
        found = [one for text in texts if (one := _read(text)) is not None]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    async def count(self) -> int:
        """See `EndpointStore.count`."""
        found: int = await self._io.execute("HLEN", ENDPOINTS)
        return found

    async def find(self, endpoint_id: str) -> Endpoint | None:
        """See `EndpointStore.find`."""
        text = await self._io.execute("HGET", ENDPOINTS, endpoint_id)
        return None if text is None else _read(text)

    async def put(self, endpoint: Endpoint) -> None:
        """See `EndpointStore.put`."""
        await self._io.execute("HSET", ENDPOINTS, endpoint.id, msgspec.json.encode(endpoint))

    async def disable(self, endpoint_id: str, reason: str, now_ms: int) -> bool:
        """See `EndpointStore.disable`."""
        text = await self._io.execute("HGET", ENDPOINTS, endpoint_id)
        if text is None or (endpoint := _read(text)) is None or endpoint.disabled:
            return False
        endpoint.disabled, endpoint.disabled_at = reason, now_ms
        told = EndpointDisabled(endpoint_id, endpoint.url, reason)
        args = [endpoint_id, text, msgspec.json.encode(endpoint), msgspec.json.encode(told)]
        return bool(await self._io.script("event_disable", [ENDPOINTS, outbox(OWN_TAG)], args))

    async def remove(self, endpoint_id: str) -> bool:
        """See `EndpointStore.remove`."""
        removed, _ = await self._io.request_all(
            [plain("HDEL", ENDPOINTS, endpoint_id), _forgetting(endpoint_id)]
        )
        return bool(removed)

    async def sweep(self, endpoint_id: str) -> None:
        """See `EndpointStore.sweep`."""
        if not await self._io.execute("HEXISTS", ENDPOINTS, endpoint_id):
            await self._io.request_all([_forgetting(endpoint_id)])

    async def status(self, endpoint_id: str) -> Status:
        """See `EndpointStore.status`."""
        flat = await self._io.execute("HGETALL", _key(endpoint_id, "s"))
        pairs = zip(flat[::2], flat[1::2], strict=True)
        fields = {name.decode(): value.decode(errors="replace") for name, value in pairs}
        try:
            return msgspec.convert(fields, Status, strict=False)
        except msgspec.ValidationError:
            return Status()

    async def save(self, endpoint_id: str, status: Status) -> None:
        """See `EndpointStore.save`."""
        flat = [part for pair in msgspec.structs.asdict(status).items() for part in pair]
        await self._io.execute("HSET", _key(endpoint_id, "s"), *flat)

    async def held_count(self, endpoint_id: str) -> int:
        """See `EndpointStore.held_count`."""
        count: int = await self._io.execute("XLEN", _key(endpoint_id, "h"))
        return count

    async def hold(self, endpoint_id: str, item: Item) -> str:
        """See `EndpointStore.hold`."""
        entry: bytes = await self._io.execute(*_holding(endpoint_id, item))
        if item.failures:
            await self._note(endpoint_id, entry.decode(), item)
        return entry.decode()

    async def held(self, endpoint_id: str, after: str) -> tuple[list[Item], str]:
        """See `EndpointStore.held`."""
        items: list[Item] = []
        while len(items) < HELD_MOST:
            part = await self._io.execute(
                "XRANGE", _key(endpoint_id, "h"), f"({after}", "+", "COUNT", PART
            )
            if not part:
                break
            names = [name for name, _ in part]
            attempts = await self._io.execute("HMGET", _key(endpoint_id, "a"), *names)
            for (name, fields), tried in zip(part, attempts, strict=True):
                items.append(_item(name.decode(), fields, tried))
            after = names[-1].decode()
        return items, after

    async def note(self, endpoint_id: str, item: Item) -> None:
        """See `EndpointStore.note`."""
        await self._note(endpoint_id, item.entry, item)

    async def _note(self, endpoint_id: str, entry: str, item: Item) -> None:
        tried = msgspec.json.encode((item.failures, item.first, item.due))
        await self._io.execute("HSET", _key(endpoint_id, "a"), entry, tried)

    async def text(self, endpoint_id: str, entry: str) -> bytes:
        """See `EndpointStore.text`."""
        found = await self._io.execute("XRANGE", _key(endpoint_id, "h"), entry, entry)
        return _fields(found[0][1]).get(b"e", b"") if found else b""

    async def release(self, endpoint_id: str, entry: str) -> None:
        """See `EndpointStore.release`."""
        await self._io.request_all(_releasing(endpoint_id, entry))

    async def bury(self, endpoint_id: str, item: Item, reason: str) -> None:
        """See `EndpointStore.bury`."""
        told = ("l", item.lane, "i", item.event_id, "e", item.text, "r", reason[:REASON_MOST])
        key = _key(endpoint_id, "d")
        await self._io.execute("XADD", key, "MAXLEN", LETTERS_MOST, "*", *told)
        if item.entry:
            await self.release(endpoint_id, item.entry)

    async def letters(self, endpoint_id: str, limit: int, cursor: str) -> tuple[list[Letter], str]:
        """See `EndpointStore.letters`."""
        start = f"({cursor}" if cursor else "+"
        key = _key(endpoint_id, "d")
        found = await self._io.execute("XREVRANGE", key, start, "-", "COUNT", limit + 1)
        letters = [_letter(name.decode(), fields) for name, fields in found[:limit]]
        return letters, letters[-1].entry if len(found) > limit else ""

    async def discard(self, endpoint_id: str, entry: str) -> bool:
        """See `EndpointStore.discard`."""
        return bool(await self._io.execute("XDEL", _key(endpoint_id, "d"), entry))

    async def replay_letters(self, endpoint_id: str, entries: Sequence[str]) -> int:
        """See `EndpointStore.replay_letters`."""
        key, done = _key(endpoint_id, "d"), 0
        for entry in entries:
            found = await self._io.execute("XRANGE", key, entry, entry)
            for name, fields in found:
                letter = _letter(name.decode(), fields)
                item = Item(letter.lane, event_id=letter.event_id, text=letter.event)
                await self._io.request_all(
                    [plain(*_holding(endpoint_id, item)), plain("XDEL", key, entry)]
                )
                done += 1
        return done

    async def replay(self, endpoint_id: str, events: Sequence[Item]) -> None:
        """See `EndpointStore.replay`."""
        await self._io.request_all([plain(*_holding(endpoint_id, item)) for item in events])


def _read(text: bytes) -> Endpoint | None:
    try:
        return _decode(text)
    except msgspec.DecodeError:
        log.error("endpoint_unreadable", size=len(text))
        return None


def _forgetting(endpoint_id: str) -> Command:
    return plain("UNLINK", *[_key(endpoint_id, letter) for letter in "shad"], repeatable=True)


def _holding(endpoint_id: str, item: Item) -> tuple[bytes | str, ...]:
    told = ("l", item.lane, "i", item.event_id, "e", item.text)
    return ("XADD", _key(endpoint_id, "h"), "*", *told)


def _releasing(endpoint_id: str, entry: str) -> list[Command]:
    return [
        plain("XDEL", _key(endpoint_id, "h"), entry, repeatable=True),
        plain("HDEL", _key(endpoint_id, "a"), entry, repeatable=True),
    ]


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _item(entry: str, flat: Sequence[bytes], tried: bytes | None) -> Item:
    """A held event; its attempts begin anew if their record is unreadable."""
    fields = _fields(flat)
    try:
        told = msgspec.json.decode(tried or b"[0,0,0]", type=tuple[int, float, float])
    except msgspec.DecodeError:
        told = (0, 0.0, 0.0)
    return Item(
        fields.get(b"l", b"").decode(errors="replace"),
        event_id=fields.get(b"i", b"").decode(errors="replace"),
        entry=entry,
        failures=told[0],
        first=told[1],
        due=told[2],
    )


def _letter(entry: str, flat: Sequence[bytes]) -> Letter:
    fields = _fields(flat)
    event_id, lane, reason = (
        fields.get(n, b"").decode(errors="replace") for n in (b"i", b"l", b"r")
    )
    return Letter(entry, event_id, lane, reason, fields.get(b"e", b""))
