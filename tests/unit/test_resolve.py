"""The rule that resolves conflicts: laws over any three states, and what is known of the base."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.kernels import imprint, render_pairs, split
from syncbridge.records.sessions import Reviewed, Status
from syncbridge.resolve import Claim, Resolution, Strategy, base_imprints, resolve

quick = settings(deadline=None, max_examples=300)

State = dict[bytes, bytes]
KEYS = st.sampled_from([b"a", b"b", b"c", b"d"])
STATES = st.dictionaries(KEYS, st.sampled_from([b"1", b"2", b'"%b"' % (b"x" * 30)]), max_size=4)


def flat(state: State) -> list[bytes]:
    return [part for pair in state.items() for part in pair]


def known(base: State, server: State, journal: bool = True) -> Reviewed:
    """The server at version 2, one commit after the base; without journal when asked."""
    changed = sorted(k for k in base.keys() | server.keys() if base.get(k) != server.get(k))
    version = 2 if changed else 1
    lines = [(1, b"", b"")] + [(2, key, imprint(base.get(key))) for key in changed]
    return Reviewed(Status.OK, version, "e", 0, flat(server), changed, lines if journal else [])


def claim(client: State, **more: object) -> Claim:
    fields: dict[str, Any] = {"version": 1} | more
    return Claim(split(render_pairs(flat(client))), **fields)


def patched(server: State, resolution: Resolution) -> State:
    sets = resolution.sets
    kept = {k: v for k, v in server.items() if k not in resolution.deletes}
    return kept | dict(zip(sets[::2], sets[1::2], strict=True))


@quick
@given(base=STATES, server=STATES, client=STATES, complete=st.booleans(), journal=st.booleans())
def test_server_wins_writes_nothing(
    base: State, server: State, client: State, complete: bool, journal: bool
) -> None:
    """The server's state stays; each conflict shows the server's value of a key that differs."""
    resolution = resolve(
        Strategy.SERVER_WINS, known(base, server, journal), claim(client, complete=complete)
    )

    assert ([], []) == (resolution.sets, resolution.deletes)
    for conflict in resolution.conflicts:
        assert ("server", server.get(conflict.key)) == (conflict.winner, conflict.value)
        assert client.get(conflict.key) != server.get(conflict.key)


@quick
@given(base=STATES, server=STATES, client=STATES, complete=st.booleans(), journal=st.booleans())
def test_client_wins_ends_at_the_client(
    base: State, server: State, client: State, complete: bool, journal: bool
) -> None:
    """Complete: the client's state. Else it lies over the server's. Lost keys are all named."""
    resolution = resolve(
        Strategy.CLIENT_WINS, known(base, server, journal), claim(client, complete=complete)
    )
    result = patched(server, resolution)

    assert (client if complete else server | client) == result
    lost = {k for k in server.keys() | base.keys()
            if server.get(k) not in (base.get(k), result.get(k))}  # fmt: skip
    gone = {k for k in base if k not in server and k in result}
    assert lost | gone == {conflict.key for conflict in resolution.conflicts}


@quick
@given(base=STATES, server=STATES, client=STATES)
def test_merge_takes_each_change(base: State, server: State, client: State) -> None:
    """A key changed by one side has that side's value; by both, the client's, and it is named."""
    resolution = resolve(Strategy.MERGE, known(base, server), claim(client, complete=True))
    result = patched(server, resolution)

    assert "journal" == resolution.base
    for key in base.keys() | server.keys() | client.keys():
        mine = client.get(key) != base.get(key)
        assert (client if mine else server).get(key) == result.get(key)
        both = mine and server.get(key) not in (base.get(key), client.get(key))
        deleted = mine and key in base and key not in server and key in client
        assert (both or deleted) == (key in {c.key for c in resolution.conflicts})


@quick
@given(state=STATES, client=STATES, complete=st.booleans())
def test_fresh_base(state: State, client: State, complete: bool) -> None:
    """From the current version client_wins and merge are one, and nothing is in conflict."""
    results = [
        resolve(strategy, known(state, state), claim(client, complete=complete))
        for strategy in (Strategy.CLIENT_WINS, Strategy.MERGE)
    ]

    assert results[0] == results[1]
    assert [] == results[0].conflicts


@quick
@given(base=STATES, server=STATES, client=STATES)
def test_named_keys_need_no_journal(base: State, server: State, client: State) -> None:
    """With changed_keys the merge is exact though nothing is known of the old values."""
    names = frozenset(k for k in base.keys() | client.keys() if base.get(k) != client.get(k))
    told = resolve(
        Strategy.MERGE,
        known(base, server, journal=False),
        claim(client, complete=True, changed_keys=names),
    )
    from_journal = resolve(Strategy.MERGE, known(base, server), claim(client, complete=True))

    assert "changed_keys" == told.base
    assert patched(server, from_journal) == patched(server, told)
    assert {c.key for c in from_journal.conflicts} == {c.key for c in told.conflicts}


@quick
@given(base=STATES, server=STATES, client=STATES, complete=st.booleans())
def test_an_unknown_base_favours_the_client_and_says_so(
    base: State, server: State, client: State, complete: bool
) -> None:
    """Without journal, merge may not keep less of the client, and names what it assumed."""
    told = resolve(Strategy.MERGE, known(base, server), claim(client, complete=complete))
    blind = resolve(
        Strategy.MERGE, known(base, server, journal=False), claim(client, complete=complete)
    )

    assert set(told.sets[::2]) <= set(blind.sets[::2])
    assert set(told.deletes) <= set(blind.deletes)
    extra = {*blind.sets[::2], *blind.deletes} - {*told.sets[::2], *told.deletes}
    assert extra <= {conflict.key for conflict in blind.conflicts}
    assert (blind.base == "unknown") == bool(blind.conflicts)


@quick
@given(base=STATES, server=STATES, client=STATES, strategy=st.sampled_from(Strategy))
def test_resolving_again_changes_nothing(
    base: State, server: State, client: State, strategy: Strategy
) -> None:
    """The result, claimed as a whole from the new version, is the state already."""
    first = resolve(strategy, known(base, server), claim(client))
    result = patched(server, first)
    again = resolve(
        strategy, Reviewed(Status.OK, 3, "e", 0, flat(result)), claim(result, version=3)
    )

    assert ([], [], []) == (again.sets, again.deletes, again.conflicts)


@pytest.mark.parametrize(
    ("stored", "sent"),
    [
        (b'"caf\\u00e9"', '"café"'.encode()),
        (b"1.0", b"1"),
        (b'{"b":[1e2],"a":"\\/"}', b'{"a":"/","b":[100]}'),
    ],
)
def test_another_spelling_is_no_change(stored: bytes, sent: bytes) -> None:
    """A device that prints what it read in its own way does not undo what others wrote since."""
    server = {b"k": b'"NEWER"', b"same": stored}
    reviewed = Reviewed(
        Status.OK, 2, "e", 0, flat(server), [b"k"], [(1, b"", b""), (2, b"k", imprint(stored))]
    )
    mine = claim({b"k": sent, b"same": sent, b"mine": b"2"})

    merged = resolve(Strategy.MERGE, reviewed, mine)
    assert ([b"mine", b"2"], [], []) == (merged.sets, merged.deletes, merged.conflicts)
    lost = resolve(Strategy.SERVER_WINS, reviewed, mine).conflicts
    assert [b"mine"] == [conflict.key for conflict in lost]
    won = resolve(Strategy.CLIENT_WINS, reviewed, mine)
    assert [b"k", sent, b"mine", b"2"] == won.sets


# ### Knowledge of the base ###


def test_the_first_change_after_the_base_counts() -> None:
    """Of several journal lines of a key, the oldest one after the base tells its base value."""
    lines = [(3, b"a", b"=1"), (5, b"a", b"=2"), (6, b"b", b""), (7, b"a", b"=3")]
    reviewed = Reviewed(Status.OK, 7, "e", 0, [b"a", b"4", b"b", b"1"], [b"a", b"b"], lines)

    assert {b"a": b"=2", b"b": b""} == base_imprints(reviewed, claim({}, version=4))
    assert {b"a": b"=3", b"b": b""} == base_imprints(reviewed, claim({}, version=5))


def test_a_journal_that_begins_later_tells_nothing() -> None:
    """It lost its oldest versions, so nothing is known of a base before them."""
    lines = [(3, b"b", b"=1"), (4, b"a", b"=1")]
    reviewed = Reviewed(Status.OK, 4, "e", 0, [b"a", b"4", b"b", b"1"], [b"a", b"b"], lines)

    assert {b"a": b"?", b"b": b"?"} == base_imprints(reviewed, claim({}, version=1))
    assert {b"a": b"=1", b"b": b"=1"} == base_imprints(reviewed, claim({}, version=2))
    assert {b"a": b"=1", b"b": b"?"} == base_imprints(reviewed, claim({}, version=3))


def test_of_another_history_nothing_is_known() -> None:
    """The base is not a place of this one, though its version is."""
    reviewed = Reviewed(Status.OK, 4, "e", 0, [b"a", b"4"], [b"a"], [(4, b"a", b"=1")])
    reviewed.verified = False

    assert {b"a": b"?"} == base_imprints(reviewed, claim({}, version=3))


def test_a_journal_that_was_never_full_tells_of_its_first_change() -> None:
    """Nothing was dropped from it, so the base right before its oldest line is known."""
    lines = [(2, b"a", b"=1"), (2, b"b", b"")]
    reviewed = Reviewed(Status.OK, 2, "e", 0, [b"a", b"4", b"b", b"1"], [b"a", b"b"], lines)

    assert {b"a": b"=1", b"b": b""} == base_imprints(reviewed, claim({}, version=1))
    assert {b"a": b"?", b"b": b"?"} == base_imprints(reviewed, claim({}, version=0))


@pytest.mark.parametrize("more", [{"version": 9}, {"version": 1, "epoch": "another"}])
def test_another_history_tells_nothing(more: dict[str, object]) -> None:
    """Ahead of the server, or of another epoch: every key is unknown."""
    reviewed = Reviewed(Status.OK, 4, "e", 0, [b"a", b"1"], [], [(1, b"a", b"")])

    assert {b"a": b"?", b"c": b"?"} == base_imprints(reviewed, claim({b"c": b"1"}, **more))


def test_below_the_floor_absent_keys_are_unknown() -> None:
    """Whether the server deleted such a key after the base is forgotten."""
    reviewed = Reviewed(Status.OK, 9, "e", 5, [b"a", b"1"], [], [(1, b"a", b"")])
    client = {b"a": b"1", b"gone": b"1"}

    assert {b"gone": b"?"} == base_imprints(reviewed, claim(client, version=4))
    assert {} == base_imprints(reviewed, claim(client, version=5))


def test_a_named_key_must_be_there() -> None:
    """changed_keys with a key that has no value, in a state that is not complete, is a mistake."""
    with pytest.raises(SyncBridgeError, match="'gone'") as caught:
        resolve(Strategy.MERGE, known({}, {}), claim({}, changed_keys=frozenset([b"gone"])))

    assert ErrorCode.INVALID_FIELD is caught.value.code
