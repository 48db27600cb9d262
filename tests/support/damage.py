"""Records in Redis, damaged in every way: each key of another type, each part of a key odd.

The names and contents of a record's keys are looked up in Redis, so the same damage is tried on any
layout.

    record = Record(raw, "b6c0...")
    for way, damage in record.ways():
        damage()
        ...
        record.restore()
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import redis

ODD = (
    b"",
    b"\xff\xfe",
    b"{",
    b"null",
    b"[]",
    b'{"a":1}',
    b'"x","y":"z',
    b"-5",
    b"9" * 30,
    b"1e999",
    b'{"a":' * 5_000,
)
"""What stands in the place of a part: no JSON, no UTF-8, another type, less or more than can be, or
nested without end."""
BEYOND = (None, "x", [], {}, -5, 10**18, 10**30, True)
"""The same for a member of a JSON object."""
SCORES = (-5.0, 1e300, float("inf"))
STRANGE = b"\xff\xfe{"
"""Name of a field or a member that does not exist."""

Way = tuple[str, Callable[[], object]]


class Record:
    """The keys whose name has a text in it. `skip`: those that are somebody else's, too."""

    def __init__(self, raw: redis.Redis, text: str, skip: tuple[str, ...] = ()) -> None:
        self._raw = raw
        found: Any = raw.scan_iter(f"*{text}*", 1000)
        names = sorted(name for name in found if not name.decode().startswith(skip))
        self.kept = {name: raw.dump(name) for name in names}

    def restore(self) -> None:
        """As it was."""
        pipeline = self._raw.pipeline(transaction=False)
        for name, dumped in self.kept.items():
            pipeline.restore(name, 0, dumped, replace=True)
        pipeline.execute()

    def ways(self) -> Iterator[Way]:
        """Each way of damaging it, by name."""
        for name in self.kept:
            kind = self._raw.type(name).decode()
            yield f"{name!r} is of another type", partial(self._another, name, kind)
            for what, damage in getattr(self, f"_{kind}")(name):
                yield f"{name!r}: {what}", damage

    def _another(self, name: bytes, kind: str) -> None:
        self._raw.delete(name)
        if kind == "string":
            self._raw.rpush(name, "not this")
        else:
            self._raw.set(name, "not this")

    def _string(self, name: bytes) -> Iterator[Way]:
        for odd, value in odd_texts(self._raw.get(name)):
            yield odd, partial(self._raw.set, name, value)

    def _hash(self, name: bytes) -> Iterator[Way]:
        held: Any = self._raw.hgetall(name)
        for field, value in held.items():
            yield f"no {field!r}", partial(self._raw.hdel, name, field)
            for odd, other in odd_texts(value):
                yield f"{field!r} is {odd}", partial(self._raw.hset, name, field, other)
        for other in ODD:
            yield f"a strange field: {other!r}", partial(self._raw.hset, name, STRANGE, other)

    def _zset(self, name: bytes) -> Iterator[Way]:
        for member in (*self._raw.zrange(name, 0, -1), STRANGE, b""):
            for score in SCORES:
                add = partial(self._raw.zadd, name, {member: score})
                yield f"{member!r} at {score}", add

    def _set(self, name: bytes) -> Iterator[Way]:
        for member in (*ODD, STRANGE):
            yield f"a strange member: {member!r}", partial(self._raw.sadd, name, member)

    def _list(self, name: bytes) -> Iterator[Way]:
        for at, value in enumerate(self._raw.lrange(name, 0, -1)):
            for odd, other in odd_texts(value):
                yield f"{at} is {odd}", partial(self._raw.lset, name, at, other)

    def _stream(self, name: bytes) -> Iterator[Way]:
        found: Any = self._raw.xrange(name, count=1)
        for _, fields in found:
            for field, value in fields.items():
                for odd, other in odd_texts(value):
                    more = partial(self._raw.xadd, name, fields | {field: other})
                    yield f"{field!r} is {odd}", more
        yield "a strange entry", partial(self._raw.xadd, name, {STRANGE: STRANGE})


def odd_texts(value: bytes) -> Iterator[tuple[str, bytes]]:
    """What can stand in the place of a text; of a JSON object also each member damaged."""
    for odd in ODD:
        yield repr(odd), odd
    try:
        document = json.loads(value)
    except ValueError:
        return
    if isinstance(document, dict):
        for path in paths_of(document):
            for other in BEYOND:
                yield f"with {'.'.join(path)} {other!r}", replaced(document, path, other)


def paths_of(document: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Every member, and the members of those that are objects."""
    for name, value in document.items():
        yield (name,)
        if isinstance(value, dict):
            for path in paths_of(value):
                yield (name, *path)


def replaced(document: dict[str, Any], path: tuple[str, ...], value: Any) -> bytes:
    """The document with another value at a place."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return json.dumps(copy).encode()
