"""Which hash tag a session's keys carry: 1,024 buckets, spread evenly over the slots of a cluster.

Bucket `i` has the slots `16 i` to `16 i + 15`. A cluster gives its servers contiguous ranges of
slots, so each server has its share of the buckets to within one. A tag that were made at random
would leave some servers with a fifth more than others.

The table must never change: it says where the data is. It is made by the rule below at import,
in 3 ms, and a test holds its digest.
"""

from binascii import crc_hqx
from collections.abc import Iterator
from itertools import count, product
from zlib import crc32

BUCKETS = 1024
SLOTS = 16_384
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def slot_of(tag: str) -> int:
    """The slot of a hash tag: CRC16 (XMODEM) modulo 16,384, as Redis Cluster computes it."""
    return crc_hqx(tag.encode(), 0) % SLOTS


def _names() -> Iterator[str]:
    for length in count(1):
        for letters in product(_ALPHABET, repeat=length):
            yield "".join(letters)


def _table() -> tuple[str, ...]:
    """The first name, by length and then by letters, in the range of each bucket."""
    tags: dict[int, str] = {}
    for name in _names():
        tags.setdefault(slot_of(name) * BUCKETS // SLOTS, name)
        if len(tags) == BUCKETS:
            break
    return tuple(tags[bucket] for bucket in range(BUCKETS))


TAGS = _table()
"""The tag of each bucket."""


def bucket_of(session_id: str) -> int:
    """The bucket of a session. An id may stand for bytes that are no text (`surrogateescape`)."""
    return crc32(session_id.encode(errors="surrogateescape")) % BUCKETS


def session_key(session_id: str, letter: str) -> str:
    """One of the keys of a session; `letter` as in docs/decisions/0009-the-layout-of-redis.md."""
    return f"s:{{{TAGS[bucket_of(session_id)]}}}:{session_id}:{letter}"
