"""Order, holes and differences in one node's view of a session."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.records.sessions import Place
from syncbridge.session import MAX_HELD, MAX_JUMPS, Change, OfferResult, Session


def change(version: int, prev: int | None = None, epoch: str = "e", **sets: str) -> Change:
    flat = [x for k, v in sets.items() for x in (k.encode(), v.encode())]
    before = version - 1 if prev is None else prev
    tokens = token(epoch, version), token(epoch, before)
    return Change(version, before, epoch, "d", "", flat, [], *tokens)


def catch_up(s: Session[object], version: int, out: list[Change], **sets: str) -> None:
    """A read of the difference, from its beginning to its end."""
    s.read()
    s.catch_up(at(version), [x for k, v in sets.items() for x in (k.encode(), v.encode())], [], out)
    s.release(out)


def token(epoch: str, version: int) -> str:
    return f"{epoch}{version}" if version else ""


def at(version: int, epoch: str = "e") -> Place:
    return Place(epoch, version, token(epoch, version))


def session(version: int = 0, epoch: str = "e") -> Session[object]:
    s: Session[object] = Session("s")
    s.begin(Place(epoch, version, token(epoch, version)), [], [])
    return s


def test_next_commit_is_applied_to_replica_and_given_out() -> None:
    """The commit that follows ours goes out and into the replica."""
    s, out = session(), []

    assert OfferResult.APPLIED is s.offer(change(1, a="1"), out)

    assert [1] == [c.version for c in out]
    assert s.doc is not None
    assert b'{"a":1}' == s.doc.render()


def test_commit_seen_before_is_dropped() -> None:
    """A repeated commit does nothing."""
    s, out = session(5), []

    assert OfferResult.SEEN is s.offer(change(5), out)
    assert [] == out


def test_hole_holds_back_what_follows_until_it_closes() -> None:
    """Version 2 waits for version 1, then both go out in order."""
    s, out = session(), []

    assert OfferResult.HELD is s.offer(change(2, b="2"), out)
    assert s.has_hole()
    assert OfferResult.APPLIED is s.offer(change(1, a="1"), out)

    assert [1, 2] == [c.version for c in out]
    assert not s.has_hole()


def test_commits_before_begin_wait_for_it() -> None:
    """What arrives while the state is being read is kept, and what the state has is dropped."""
    s: Session[object] = Session("s")
    out: list[Change] = []
    s.offer(change(3, c="3"), out)
    s.offer(change(4, d="4"), out)

    s.begin(at(3), [b"c", b"3"], out)

    assert [4] == [c.version for c in out]
    assert 4 == s.version


def test_other_epoch_is_a_new_lineage() -> None:
    """Versions of different epochs are never compared."""
    s = session(7)

    assert OfferResult.FOREIGN is s.offer(change(8, epoch="other"), [])
    assert 7 == s.version


def test_first_commit_of_all_gives_the_epoch() -> None:
    """A session that did not exist takes the epoch of its first write."""
    s = session(0, "")

    assert OfferResult.APPLIED is s.offer(change(1, epoch="new"), [])
    assert "new" == s.epoch


def test_a_session_that_was_just_created_waits_for_its_first_commit() -> None:
    """The second commit of a new session overtakes the first: a hole, not another lineage."""
    s, out = session(0, ""), []

    assert OfferResult.HELD is s.offer(change(2, b="2"), out)
    assert OfferResult.APPLIED is s.offer(change(1, a="1"), out)

    assert [1, 2] == [c.version for c in out]
    assert "e" == s.epoch


def test_commits_that_create_a_session_before_begin_are_not_lost() -> None:
    """The join was answered before the session was created, and its commits came first."""
    s: Session[object] = Session("s")
    out: list[Change] = []
    s.offer(change(2, b="2"), out)
    s.offer(change(1, a="1"), out)

    s.begin(Place(), [], out)

    assert [1, 2] == [c.version for c in out]
    assert [] == s.take_covered()


def test_difference_closes_a_hole_and_releases_what_waited() -> None:
    """A difference to 3 makes the held 4 the next one; prev_version is what devices have."""
    s, out = session(), []
    s.offer(change(4, d="4"), out)

    s.catch_up(at(3), [b"a", b"1"], [], out)
    s.release(out)

    assert [(0, 3), (3, 4)] == [(c.prev_version, c.version) for c in out]


def test_what_is_inside_of_a_step_over_several_versions_is_not_known() -> None:
    """A key that was made and deleted in there is missed by whoever saw it on another node."""
    s = session()
    catch_up(s, 1, [], a="1")
    s.catch_up(at(4), [], [b"seen at 2 and 3"], [])
    s.offer(change(5, b="5"), [])

    assert [None, None] == [s.since_version(version) for version in (2, 3)]
    assert [(b'{"b":5}', b"[]")] * 2 == [s.since_version(version) for version in (1, 4)]


def test_many_steps_over_several_versions_are_remembered_as_one() -> None:
    """Bounded; of what is between the oldest of them less is known, never something wrong."""
    s = session()
    for version in range(0, 60, 3):
        catch_up(s, version + 2, [], a="1")
        s.offer(change(version + 3, b="1"), [])

    assert s.since_version(0) is not None
    assert s.since_version(3) is None
    assert s.since_version(57) is not None
    assert s.jumps is not None
    assert MAX_JUMPS >= len(s.jumps)


def test_commit_swallowed_by_a_difference_is_remembered_for_its_sender() -> None:
    """Its sender is owed an acknowledgement, once."""
    s = session(1)
    s.offer(msgspec.structs.replace(change(3), correlation_id="c"), [])

    catch_up(s, 5, [])

    assert [3] == [c.version for c in s.take_covered()]
    assert [] == s.take_covered()


def test_every_sender_is_answered_although_more_commits_wait_than_are_kept() -> None:
    """Commits dropped behind a hole are owed until a difference brings their content."""
    s, out = session(), []
    count = 3 * MAX_HELD
    for version in range(2, count + 1):
        s.offer(msgspec.structs.replace(change(version), correlation_id=f"c{version}"), out)
    early = s.take_covered()

    catch_up(s, count, out)

    assert [] == early
    assert [count] == [c.version for c in out]
    assert set(range(2, count + 1)) == {c.version for c in s.take_covered()}


def test_commit_that_was_seen_is_still_acknowledged() -> None:
    """An own commit that a wider change overtook."""
    s = session(3)
    for version in (4, 5):
        s.offer(change(version), [])

    assert OfferResult.SEEN is s.offer(change(4), [])

    assert [4] == [c.version for c in s.take_covered()]


def test_held_commits_are_bounded() -> None:
    """Behind a hole at most MAX_HELD commits are kept."""
    s = session()
    for version in range(2, 3 * MAX_HELD):
        s.offer(change(version), [])

    assert s.held is not None
    assert MAX_HELD >= len(s.held)


@given(st.permutations(list(range(1, 13))), st.lists(st.integers(1, 12), max_size=10))
def test_any_arrival_order_goes_out_in_version_order(order: list[int], again: list[int]) -> None:
    """Whatever the order and the repetitions, devices see 1..n once, in order."""
    s, out = session(), []

    for version in [*order, *again]:
        s.offer(change(version, k=str(version)), out)

    assert list(range(1, 13)) == [c.version for c in out]
    assert s.doc is not None
    assert b'{"k":12}' == s.doc.render()


def test_equal_number_of_another_history_is_not_seen() -> None:
    """A lost version 5 and a new one have one number: the new one waits for a read."""
    s = session(4)
    s.offer(change(5), [])
    other = msgspec.structs.replace(change(5), lineage="another")

    assert OfferResult.HELD is s.offer(other, [])
    assert s.has_hole()
    assert [] == s.take_covered()


def test_replica_stands_still_while_a_read_is_under_way() -> None:
    """What comes meanwhile is offered after it: 3 is in the answer, 4 follows."""
    s, out = session(1), []
    assert at(1) == s.read()

    assert [OfferResult.HELD] * 3 == [s.offer(change(v, k=str(v)), out) for v in (2, 3, 4)]
    assert [] == out
    s.catch_up(at(3), [b"k", b"3"], [], out)
    s.release(out)

    assert [(1, 3), (3, 4)] == [(c.prev_version, c.version) for c in out]
    assert [3, 2] == [c.version for c in s.take_covered()]
    assert not s.has_hole()


def test_whole_state_of_another_history_replaces_everything() -> None:
    """Places of the history before are forgotten; commits of the new one go on from it."""
    s, out = session(0, ""), []
    for version in range(1, 11):
        s.offer(change(version, k=str(version)), out)
    s.read()
    s.replace(at(5), [b"k", b"5"])
    s.release(out)
    other = Change(6, 5, "e", "d", "", [b"k", b"6"], [], "new6", "e5")

    assert (5, 1) == (s.version, s.resets)
    assert not s.knows(at(10))
    assert OfferResult.APPLIED is s.offer(other, out)
    assert not s.knows(at(6))


def test_what_cannot_be_read_is_given_up() -> None:
    """Who waits for another epoch, or behind a hole, is named once; the replica stays."""
    s = session(3)
    s.offer(msgspec.structs.replace(change(9, epoch="other"), correlation_id="one"), [])
    s.read()
    s.offer(msgspec.structs.replace(change(7), correlation_id="two"), [])
    s.release([])

    assert ["one", "two"] == [c.correlation_id for c in s.give_up()]
    assert [] == s.give_up()
    assert (3, False) == (s.version, s.has_hole())
