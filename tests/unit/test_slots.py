"""Hash tags: each bucket in its range of slots, and the table as it was from the beginning."""

import uuid
from collections import Counter
from hashlib import sha1

from redis.crc import key_slot

from syncbridge.slots import BUCKETS, TAGS, bucket_of, session_key, slot_of


def test_each_tag_lies_in_the_range_of_its_bucket() -> None:
    """Bucket i has slots 16 i to 16 i + 15, by the slot function of redis-py."""
    assert [key_slot(tag.encode()) // 16 for tag in TAGS] == list(range(BUCKETS))
    assert [slot_of(tag) for tag in TAGS] == [key_slot(tag.encode()) for tag in TAGS]


def test_table_never_changes() -> None:
    """Another table would look for the data elsewhere."""
    assert TAGS[:3] == ("ru", "04b", "cv")
    assert sha1(" ".join(TAGS).encode()).hexdigest() == "38358cb1823096b880aac9ab01d66560d6d24ab2"


def test_all_keys_of_a_session_are_in_its_slot() -> None:
    """The tag alone decides."""
    sid = "0f8fad5b-d9cb-469f-a165-70867728950e"
    slots = {key_slot(session_key(sid, letter).encode()) for letter in "mdkjcoz"}
    assert slots == {slot_of(TAGS[bucket_of(sid)])}


def test_random_sessions_spread_over_the_buckets() -> None:
    """Of 64 sessions a bucket on average, no bucket gets more than twice as many."""
    spread = Counter(bucket_of(str(uuid.UUID(int=n * 2**64 + n))) for n in range(64 * BUCKETS))
    assert max(spread.values()) <= 128


def test_ids_that_are_no_text_have_a_bucket() -> None:
    """Such a name in an index must not stop the work on the others."""
    assert 0 <= bucket_of(b"\xff\xfe".decode(errors="surrogateescape")) < BUCKETS
