"""Replicas: commits, gaps, what changed since, tombstones, and the difference to a new state."""

import json
import sys
from types import ModuleType
from typing import Any

import pytest


def replica(kernel: ModuleType, state: bytes, version: int = 1) -> Any:
    return kernel.Doc.from_flat(kernel.split(state).flat(), version, "epoch")


def test_an_empty_replica(kernel: ModuleType) -> None:
    """A session that was never written is an empty object at version 0."""
    doc = kernel.Doc()

    assert (doc.render(), len(doc), doc.items(), doc.nbytes) == (b"{}", 0, [], 2)
    assert (doc.version, doc.epoch) == (0, "")
    assert doc.since(0) == (b"{}", b"[]")
    assert doc.get(b"a") is None


def test_from_flat(kernel: ModuleType) -> None:
    """An HGETALL reply becomes a replica of the given version."""
    doc = kernel.Doc.from_flat([b"b", b"[1]", b'"', b"null"], 7, "e")

    assert doc.render() == b'{"b":[1],"\\"":null}'
    assert doc.items() == [(b"b", b"[1]"), (b'"', b"null")]
    assert (doc.version, doc.epoch, len(doc)) == (7, "e", 2)
    assert doc.nbytes == len(doc.render())
    assert doc.get(b'"') == b"null"
    assert b"b" in doc
    assert b"c" not in doc


def test_from_flat_keeps_the_last_of_equal_keys(kernel: ModuleType) -> None:
    """A reply that names a key twice is not an error; the last value stays."""
    doc = kernel.Doc.from_flat([b"a", b"1", b"b", b"2", b"a", b"333"], 1, "")

    assert doc.render() == b'{"a":333,"b":2}'


def test_apply_replaces_appends_and_deletes(kernel: ModuleType) -> None:
    """Known keys keep their place, new ones go to the end, deleted ones leave no trace."""
    doc = replica(kernel, b'{"a":1,"b":2,"c":3}')

    assert doc.apply([b"b", b"[20,21]", b"d", b"4"], [b"a"], 1, 2) is True
    assert doc.render() == b'{"b":[20,21],"c":3,"d":4}'
    assert (doc.version, len(doc), doc.nbytes) == (2, 3, len(doc.render()))
    assert doc.get(b"a") is None
    assert doc.get(b"b") == b"[20,21]"


def test_a_deleted_key_comes_back_at_the_end(kernel: ModuleType) -> None:
    """Deleting and setting in one commit, or in two, moves a key behind the others."""
    doc = replica(kernel, b'{"a":1,"b":2}')

    assert doc.apply([b"a", b"3"], [b"a", b"unknown"], 1, 2)
    assert doc.render() == b'{"b":2,"a":3}'
    assert doc.apply([], [b"b", b"b"], 2, 3)
    assert doc.apply([b"b", b"5"], [], 3, 4)
    assert doc.render() == b'{"a":3,"b":5}'


@pytest.mark.parametrize(("prev", "version"), [(0, 2), (2, 3), (1, 1), (1, 0), (-1, 2), (2**70, 3)])
def test_a_gap_changes_nothing(kernel: ModuleType, prev: int, version: int) -> None:
    """A commit that does not follow this version, or goes back, is refused as a whole."""
    doc = replica(kernel, b'{"a":1}')

    assert doc.apply([b"a", b"2"], [b"a"], prev, version) is False
    assert (doc.render(), doc.version) == (b'{"a":1}', 1)


def test_versions_may_skip(kernel: ModuleType) -> None:
    """Merged commits go over several versions at once."""
    doc = replica(kernel, b"{}")

    assert doc.apply([b"a", b"1"], [], 1, 5)
    assert (doc.version, doc.since(4)) == (5, (b'{"a":1}', b"[]"))


@pytest.mark.parametrize(
    ("sets", "deletes", "error"),
    [([b"a"], [], ValueError), (["a", "1"], [], TypeError), ([], ["a"], TypeError)],
)
def test_wrong_arguments_change_nothing(
    kernel: ModuleType, sets: list[Any], deletes: list[Any], error: type[Exception]
) -> None:
    """A call that makes no sense raises before anything is written."""
    doc = replica(kernel, b'{"a":1}')

    with pytest.raises(error):
        doc.apply([b"a", b"9", *sets], [b"a", *deletes], 1, 2)
    assert (doc.render(), doc.version) == (b'{"a":1}', 1)


def test_versions_are_bounded(kernel: ModuleType) -> None:
    """A version that no counter reaches is a programming error."""
    for wrong in (-1, 2**64):
        with pytest.raises(OverflowError):
            kernel.Doc(wrong)
    with pytest.raises(OverflowError):
        kernel.Doc().apply([b"a", b"1"], [], 0, 2**64)


def test_render_is_cached(kernel: ModuleType) -> None:
    """Rendering twice gives the same object; a commit that changes something ends that."""
    doc = replica(kernel, b'{"a":1}')
    first = doc.render()

    assert doc.render() is first
    assert doc.apply([b"a", b"2"], [], 1, 2)
    assert doc.render() == b'{"a":2}'
    assert first == b'{"a":1}'


def test_values_grow_and_shrink(kernel: ModuleType) -> None:
    """A key written again and again between two renders ends with its last value."""
    doc = replica(kernel, b'{"a":1,"b":2}')
    for version, size in enumerate([50, 3, 70, 0, 900, 1, 5000, 2], 1):
        value = b'"' + b"x" * size + b'"'
        assert doc.apply([b"a", value], [], version, version + 1)
        assert doc.get(b"a") == value
        assert doc.nbytes == len(b'{"a":,"b":2}') + len(value)
    assert doc.render() == b'{"a":"xx","b":2}'


def test_since_names_what_changed(kernel: ModuleType) -> None:
    """Keys set and keys deleted after a version, with their present values."""
    doc = replica(kernel, b'{"a":1,"b":2,"c":3}')
    assert doc.apply([b"a", b"10"], [], 1, 2)
    assert doc.apply([b"d", b"4"], [b"b"], 2, 3)
    assert doc.apply([b"a", b"11"], [], 3, 4)

    assert doc.since(1) == (b'{"a":11,"d":4}', b'["b"]')
    assert doc.since(2) == (b'{"a":11,"d":4}', b'["b"]')
    assert doc.since(3) == (b'{"a":11}', b"[]")
    assert doc.since(4) == (b"{}", b"[]")


def test_since_is_unknown_before_the_beginning_and_after_the_end(kernel: ModuleType) -> None:
    """A replica loaded at 5 says nothing about 4, and nothing about versions to come."""
    doc = replica(kernel, b'{"a":1}', version=5)

    assert (doc.since(4), doc.since(6), doc.since(-1), doc.since(2**70)) == (None,) * 4
    assert doc.since(5) == (b"{}", b"[]")


def test_a_key_that_came_back_is_not_deleted(kernel: ModuleType) -> None:
    """Setting a deleted key removes its tombstone."""
    doc = replica(kernel, b'{"a":1}')
    assert doc.apply([], [b"a"], 1, 2)
    assert doc.since(1) == (b"{}", b'["a"]')
    assert doc.apply([b"a", b"2"], [], 2, 3)

    assert doc.since(1) == (b'{"a":2}', b"[]")


def test_an_equal_value_still_counts_as_written(kernel: ModuleType) -> None:
    """A commit that sets the value a key has moves the version of the key."""
    doc = replica(kernel, b'{"a":1}')
    assert doc.apply([b"a", b"1"], [], 1, 2)

    assert doc.since(1) == (b'{"a":1}', b"[]")


def test_tombstones_are_bounded(kernel: ModuleType) -> None:
    """Of 300 deletions the last 256 are known; before them a delta would not be complete."""
    flat = [part for n in range(300) for part in (b"k%d" % n, b"1")]
    doc = kernel.Doc.from_flat(flat, 1, "")
    for n in range(300):
        assert doc.apply([], [b"k%d" % n], n + 1, n + 2)

    assert doc.render() == b"{}"
    assert doc.since(44) is None
    known = doc.since(45)
    assert json.loads(known[1]) == [f"k{n}" for n in range(44, 300)]


def test_one_commit_may_overflow_the_tombstones(kernel: ModuleType) -> None:
    """More deletions at once than are remembered leave nothing known before that commit."""
    flat = [part for n in range(300) for part in (b"k%d" % n, b"1")]
    doc = kernel.Doc.from_flat(flat, 1, "")
    assert doc.apply([], flat[::2], 1, 2)

    assert doc.since(1) is None
    assert doc.since(2) == (b"{}", b"[]")


def test_diff_is_minimal(kernel: ModuleType) -> None:
    """Only values that differ, keys that are new, and keys that are gone."""
    doc = replica(kernel, b'{"a":1,"b":"x","c":[1,2],"d":null}')
    target = kernel.split(b'{ "c":[1, 2], "b":"y", "a":1.5, "e":{} }')

    assert doc.diff(target) == ([b"b", b'"y"', b"a", b"1.5", b"e", b"{}"], [b"d"])
    assert doc.diff(kernel.split(doc.render())) == ([], [])
    assert doc.diff(kernel.split(b"{}")) == ([], [b"a", b"b", b"c", b"d"])
    assert kernel.Doc().diff(target) == (target.flat(), [])


def test_diff_of_a_replica_with_unrendered_commits(kernel: ModuleType) -> None:
    """Changes that were never rendered are part of the comparison."""
    doc = replica(kernel, b'{"a":1,"b":2,"c":3}')
    assert doc.apply([b"b", b"20", b"d", b"4"], [b"a"], 1, 2)

    assert doc.diff(kernel.split(b'{"b":20,"c":3,"d":4}')) == ([], [])
    assert doc.diff(kernel.split(b'{"a":1,"b":2,"c":3}')) == ([b"a", b"1", b"b", b"2"], [b"d"])


def test_diff_looks_at_keys_not_at_spelling(kernel: ModuleType) -> None:
    """A key sent with escapes is the key that Redis holds."""
    doc = kernel.Doc.from_flat(["é\n".encode(), b"1"], 1, "")

    assert doc.diff(kernel.split(b'{"\\u00e9\\u000a":1}')) == ([], [])


def test_foreign_keys_are_survived(kernel: ModuleType) -> None:
    """A key in Redis that is not UTF-8 is found, rendered readable, and can be deleted."""
    doc = kernel.Doc.from_flat([b"\xff\xfe", b"1", b"ok", b"2", b"", b"3", b"a\0", b"4"], 1, "")

    assert doc.render() == '{"\ufffd\ufffd":1,"ok":2,"":3,"a\\u0000":4}'.encode()
    assert doc.get(b"\xff\xfe") == b"1"
    assert doc.apply([b"\xed\xa0\x80", b"5", b"ok", b"6"], [b"\xff\xfe"], 1, 2)
    assert json.loads(doc.render()) == {"\ufffd\ufffd\ufffd": 5, "ok": 6, "": 3, "a\0": 4}
    assert doc.since(1) == ('{"ok":6,"\ufffd\ufffd\ufffd":5}'.encode(), '["\ufffd\ufffd"]'.encode())
    assert doc.diff(kernel.split(b'{"ok":6}'))[0] == []


def test_views_are_copies(kernel: ModuleType) -> None:
    """Lists handed out do not change with the replica."""
    doc = replica(kernel, b'{"a":1}')
    items = doc.items()
    assert doc.apply([b"a", b"2"], [], 1, 2)

    assert items == [(b"a", b"1")]


def test_small_replicas_are_small(compiled: ModuleType) -> None:
    """A session of three short keys costs less than 600 bytes, also after a few commits."""
    doc = replica(compiled, b'{"theme":"dark","scroll":120,"page":"/home"}')
    sizes = [sys.getsizeof(doc) + sys.getsizeof(doc.render())]
    for version in range(1, 20):
        assert doc.apply([b"scroll", b"%d" % version], [], version, version + 1)
        sizes.append(sys.getsizeof(doc) + sys.getsizeof(doc.render()))

    assert max(sizes) < 600


def test_an_unrendered_tail_is_bounded(compiled: ModuleType) -> None:
    """A replica that is written and never rendered keeps at most half of its size besides."""
    flat = [part for n in range(200) for part in (b"key.%d" % n, b'"%s"' % (b"x" * 70))]
    doc = compiled.Doc.from_flat(flat, 1, "")
    text = doc.nbytes
    fixed = sys.getsizeof(doc)
    for version in range(1, 2000):
        value = b'"%s"' % (b"y" * (version % 97))
        assert doc.apply([b"key.%d" % (version % 200), value], [], version, version + 1)
        assert sys.getsizeof(doc) - fixed < text
