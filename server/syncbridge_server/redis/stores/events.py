"""Events in Redis: `syncbridge_server.ports.events.EventStore`.

Every bucket of sessions, and every other tag under which scripts write events, has an outbox in its
own slot. The log and what goes with it have the tag `{events}`. Calls about several outboxes go as
one pipeline.
"""

import re
from collections.abc import Sequence
from typing import Any

from syncbridge.errors import StoreError
from syncbridge.events.cursor import START, Cursor
from syncbridge.slots import TAGS
from syncbridge_server.ports.events import Listening, Load, Part, Place, Round, Want
from syncbridge_server.redis.bus.messages import COMMON_TAGS
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, plain
from syncbridge_server.redis.stores.node_codec import NODES

STATE = "ev:{events}:state"
KNOWN = "ev:{events}:known"
ENDPOINTS = "ev:{events}:endpoints"
LOG = "ev:{events}:log"
AT = "ev:{events}:at"
NOTED = "ev:{events}:noted"
CHANGED = "ev:{events}:changed"

OWN_TAG = "events"
"""Of what stands beside the log."""

EVENT_TAGS: tuple[str, ...] = (*TAGS, *COMMON_TAGS[1:], OWN_TAG)
"""Every tag under which scripts write events."""

TOLD_AT_ONCE = 32
TAKEN_AT_ONCE = 8
"""Outboxes of one call of a script, where they need not be in one slot."""

MOST_KEYS, MOST_KEY_BYTES, MOST_VALUE_BYTES = 128, 4_096, 16_384
"""Of one `session.updated`."""

EXPIRED_AT_ONCE = 64
WALKED_AT_ONCE = 512
"""Keys of one step through all of them."""

_META = re.compile(rb"s:\{([0-9a-z]+)\}:([0-9a-f-]{36}):m")
FADE_MS = 86_400_000


def outbox(tag: str) -> str:
    """The outbox of a tag."""
    return f"e:{{{tag}}}"


def dirty(tag: str) -> str:
    """Sessions that have changed."""
    return f"ed:{{{tag}}}"


def expiring(tag: str) -> str:
    """Sessions, and when to look whether they have expired."""
    return f"ex:{{{tag}}}"


class RedisEvents:
    """Implements `syncbridge_server.ports.events.EventStore`.

    Args:
        most, most_bytes: bounds of the log. session_ms: life of a session.
    """

    tags: Sequence[str] = EVENT_TAGS

    def __init__(self, io: RedisIO, *, most: int, most_bytes: int, session_ms: int) -> None:
        self._io = io
        self._bounds = (most, most_bytes)
        self._session_ms = session_ms

    async def listening(self) -> Listening:
        """See `EventStore.listening`."""
        fields = ("since", "until", "values", "settled")
        since, ends, values, settled = await self._io.execute("HMGET", STATE, *fields)
        if since is None:
            return Listening()
        return Listening(since.decode(), int(ends or 0), int(values or 0), settled == since)

    async def listen(self, life_ms: int, values_ms: int) -> Listening:
        """See `EventStore.listen`."""
        args = [life_ms, values_ms]
        reply = await self._io.script("event_listen", [STATE], args, repeatable=True)
        since, ends, values, settled = reply
        return Listening(since.decode(), int(ends), int(values), settled == since)

    async def cease(self) -> bool:
        """See `EventStore.cease`."""
        keys = [STATE, ENDPOINTS, KNOWN]
        return bool(await self._io.script("event_cease", keys, [], repeatable=True))

    async def know(self, node: str, since: str) -> None:
        """See `EventStore.know`. What was sent before is done by then, as PING is answered."""
        await self._io.request_all([plain("PING", at=at) for at in self._io.primaries()])
        await self._io.execute("HSET", KNOWN, node, since)

    async def ignorant(self, since: str) -> list[str]:
        """See `EventStore.ignorant`. The entries of nodes that are gone are taken out."""
        listed, known = await self._io.request_all([plain("HKEYS", NODES), plain("HGETALL", KNOWN)])
        told = dict(zip(known[::2], known[1::2], strict=True))
        current = since.encode()
        gone = [node for node, mark in told.items() if node not in listed and mark != current]
        if gone:
            await self._io.execute("HDEL", KNOWN, *gone)
        found = [node for node in listed if told.get(node) != current]
        return sorted(node.decode(errors="replace") for node in found)

    async def settle(self, since: str) -> None:
        """See `EventStore.settle`."""
        await self._io.execute("HSET", STATE, "settled", since)

    async def note(self, tags: Sequence[str], changed: Sequence[str]) -> bool:
        """See `EventStore.note`."""
        commands = [plain("SADD", CHANGED, *changed, repeatable=True)] if changed else []
        if not tags:
            await self._io.request_all(commands)
            return False
        asked = [plain("SADD", NOTED, *tags, repeatable=True), plain("SCARD", NOTED)]
        *_, added, there = await self._io.request_all([*commands, *asked])
        return bool(added == there)

    async def noted(self) -> set[str]:
        """See `EventStore.noted`."""
        return await self._taken(NOTED)

    async def changed(self) -> set[str]:
        """See `EventStore.changed`."""
        return await self._taken(CHANGED)

    async def _taken(self, key: str) -> set[str]:
        found = await self._io.execute("SPOP", key, len(EVENT_TAGS))
        return {tag.decode(errors="replace") for tag in found} & _KNOWN_TAGS

    async def nodes(self) -> dict[str, str]:
        """See `EventStore.nodes`."""
        flat = [text.decode(errors="replace") for text in await self._io.execute("HGETALL", NODES)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def places(self) -> dict[str, Place]:
        """See `EventStore.places`."""
        flat = await self._io.execute("HGETALL", AT)
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return {tag.decode(): place_of(text) for tag, text in pairs if not tag.startswith(b"#")}

    async def take(
        self, wanted: Sequence[Want], most: int, *, values: bool
    ) -> Sequence[Part | StoreError]:
        """See `EventStore.take`."""
        server = self._io.server
        size = 1 if server is not None and server.cluster else TAKEN_AT_ONCE
        asked = [wanted[first : first + size] for first in range(0, len(wanted), size)]
        bounds = [most, TOLD_AT_ONCE, MOST_KEYS, MOST_KEY_BYTES, MOST_VALUE_BYTES * values]
        replies = await self._io.request([_taking(some, bounds, self._io) for some in asked])
        parts: list[Part | StoreError] = []
        for some, reply in zip(asked, replies, strict=True):
            parts += _parts(reply, len(some))
        return parts

    async def expire(self, tags: Sequence[str]) -> Sequence[int | StoreError]:
        """See `EventStore.expire`."""
        args = [EXPIRED_AT_ONCE, self._session_ms]
        return await self._io.request(
            [self._script("event_expire", [outbox(tag), expiring(tag)], args) for tag in tags]
        )

    async def walked(self, since: str) -> bool:
        """See `EventStore.walked`."""
        return bool(await self._io.execute("HGET", STATE, "walked") == since.encode())

    async def walk(self, at: int) -> int:
        """See `EventStore.walk`. One that ends between the two steps is told of at once."""
        following, keys = await self._io.scan(at, "s:{*}:*:m", WALKED_AT_ONCE)
        found = [match for key in keys if (match := _META.fullmatch(key))]
        asked = [plain("HMGET", match[0], "v", "t", "u", repeatable=True) for match in found]
        commands = []
        for match, meta in zip(found, await self._io.request(asked) if asked else [], strict=True):
            if isinstance(meta, StoreError) or not (meta[0] and (meta[1] or b"").isdigit()):
                continue  # damaged, or only joined
            due, owner = int(meta[1]) + self._session_ms, meta[2] or b""
            key = expiring(match[1].decode())
            commands.append(plain("ZADD", key, "NX", due, match[2] + b" " + owner, repeatable=True))
        await self._io.request_all(commands)
        return following

    async def walk_done(self, since: str) -> None:
        """See `EventStore.walk_done`."""
        await self._io.execute("HSET", STATE, "walked", since)

    async def carry(self, loads: Sequence[Load]) -> tuple[list[Place | None], int]:
        """See `EventStore.carry`."""
        args: list[bytes | str | int] = [*self._bounds, len(loads), *(one.tag for one in loads)]
        for load in loads:
            before = "" if load.place == Place() else str(load.place)
            args += (before, str(load.after), len(load.events), *load.events)
        keys = [LOG, AT]
        dropped, *places = await self._io.script("event_carry", keys, args, repeatable=True)
        return [place_of(place) if place else None for place in places], dropped

    async def trim(self, tags: Sequence[tuple[str, str]]) -> None:
        """See `EventStore.trim`."""
        commands = []
        for tag, entry in tags:
            ms, _, number = entry.partition("-")
            kept = f"{ms}-{int(number) + 1}"
            commands.append(plain("XTRIM", outbox(tag), "MINID", kept, repeatable=True))
        await self._io.request(commands)

    async def fade(self) -> None:
        """See `EventStore.fade`. Whoever reads again ends that: see `event_expire.lua`."""
        life = self._session_ms + FADE_MS
        await self._io.request(
            [
                plain("PEXPIRE", f"{name}:{{{tag}}}", life, repeatable=True)
                for tag in TAGS
                for name in ("ed", "et", "ex")
            ]
        )

    async def read(self, after: Cursor, most: int) -> list[tuple[Cursor, bytes]]:
        """See `EventStore.read`."""
        start = "-" if after == START else f"({after}"
        found = await self._io.execute("XRANGE", LOG, start, "+", "COUNT", most)
        return [(_cursor(name), fields[1]) for name, fields in found]

    async def last(self) -> Cursor:
        """See `EventStore.last`."""
        found = await self._io.execute("XREVRANGE", LOG, "+", "-", "COUNT", 1)
        return _cursor(found[0][0]) if found else START

    def _script(self, name: str, keys: Sequence[str], args: Sequence[str | int]) -> Command:
        return self._io.script_command(name, keys, args, repeatable=True)


_KNOWN_TAGS = frozenset(EVENT_TAGS)


def _taking(wanted: Sequence[Want], bounds: Sequence[int], io: RedisIO) -> Command:
    """One call for some outboxes."""
    keys: list[str] = []
    args: list[bytes | str | int] = [*bounds]
    for one in wanted:
        keys += (outbox(one.tag), dirty(one.tag), f"et:{{{one.tag}}}")
        args += (one.place.entry, int(one.round), one.forget)
    # A round that was begun twice would tell a session twice in a second.
    repeatable = all(one.round is not Round.BEGIN for one in wanted)
    return io.script_command("event_take", keys, args, repeatable=repeatable)


def _parts(reply: Any, count: int) -> Sequence[Part | StoreError]:
    """The answer for each outbox of a call."""
    if isinstance(reply, StoreError):
        return [reply] * count
    return [Part(*one) if isinstance(one, list) else _error(one) for one in reply]


def _error(text: bytes) -> StoreError:
    return StoreError(f"Redis: {text.decode(errors='replace')}")


def place_of(text: bytes) -> Place:
    """A place out of its text; the beginning, where that is none."""
    entry, _, number = text.decode(errors="replace").partition(" ")
    if not number.isdigit():
        return Place()
    return Place(entry, int(number))


def _cursor(name: bytes) -> Cursor:
    ms, _, number = name.partition(b"-")
    return Cursor(int(ms), int(number))
