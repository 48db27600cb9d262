"""The laws that make devices converge, searched for counterexamples.

On replicas and change sets (both kernels), on the reference model that the scripts are compared
with (tests/contract/test_model.py), and on a node between a store and its devices.
"""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from support.contract.model import Session as Model
from support.contract.requests import write
from support.kernels.merge_kit import KERNELS, MergeKernel
from syncbridge.kernels import split
from syncbridge.records.sessions import Apply, Mode, Place, Status
from syncbridge.session import Change, OfferResult, Session

quick = settings(deadline=None, max_examples=200)

State = dict[bytes, bytes]
Delta = tuple[list[bytes], list[bytes]]

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", "é".encode(), b'"'])
VALUES = st.sampled_from([b"1", b"2", b"null", b"[]", b'"' + b"x" * 30 + b'"'])
STATES = st.dictionaries(NAMES, VALUES, max_size=6)


@st.composite
def deltas(draw: Callable[..., Any]) -> Delta:
    """A commit: keys set and other keys deleted, at least one of them."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
    cut = draw(st.integers(0, len(names)))
    return [part for name in names[:cut] for part in (name, draw(VALUES))], names[cut:]


HISTORIES = st.lists(deltas(), min_size=1, max_size=12)


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> MergeKernel:
    """The compiled kernels, then their pure twins."""
    return KERNELS[request.param]


def flat(state: State) -> list[bytes]:
    return [part for pair in state.items() for part in pair]


def patched(state: State, delta: Delta) -> State:
    sets, deletes = delta
    kept = {key: value for key, value in state.items() if key not in deletes}
    return kept | dict(zip(sets[::2], sets[1::2], strict=True))


def lives(start: State, history: list[Delta]) -> list[State]:
    """The state at each version."""
    states = [start]
    for delta in history:
        states.append(patched(states[-1], delta))
    return states


# ### Replicas ###


@quick
@given(start=STATES, history=HISTORIES, cuts=st.lists(st.booleans(), min_size=12, max_size=12))
def test_replicas_converge_however_deltas_are_coalesced(
    kernel: MergeKernel, start: State, history: list[Delta], cuts: list[bool]
) -> None:
    """Adjacent commits merged into one, in any grouping, lead to the same state and version."""
    doc = kernel.documents.Doc.from_flat(flat(start), 0, "e")
    begun, merged = 0, None
    for version, delta in enumerate(history, 1):
        merged = delta if merged is None else kernel.merge.compose(merged, delta)
        if cuts[version - 1] or version == len(history):
            assert doc.apply(*merged, begun, version)
            assert lives(start, history)[version] == dict(doc.items())
            begun, merged = version, None

    assert len(history) == doc.version


@quick
@given(start=STATES, history=HISTORIES, data=st.data())
def test_resume_from_any_version_is_the_state(
    kernel: MergeKernel, start: State, history: list[Delta], data: st.DataObject
) -> None:
    """state(n) changed by what is told since n is the present state; twice is once."""
    doc = kernel.documents.Doc.from_flat(flat(start), 0, "e")
    for version, delta in enumerate(history, 1):
        assert doc.apply(*delta, version - 1, version)
    states = lives(start, history)
    since = data.draw(st.integers(0, len(history)))
    changes, deleted = doc.since(since)
    sets = kernel.documents.split(changes).flat()
    deletes = [key.encode() for key in json.loads(deleted)]
    once = patched(states[since], (sets, deletes))

    assert states[-1] == once == patched(once, (sets, deletes)) == dict(doc.items())


@quick
@given(start=STATES, history=HISTORIES, data=st.data())
def test_what_is_told_in_two_parts_is_what_is_told_at_once(
    kernel: MergeKernel, start: State, history: list[Delta], data: st.DataObject
) -> None:
    """delta(a, b) composed with delta(b, c) leads where delta(a, c) leads, for any a <= b <= c."""
    states = lives(start, history)
    a, b, c = sorted(data.draw(st.integers(0, len(history))) for _ in range(3))

    def told(old: int, new: int) -> Delta:
        doc = kernel.documents.Doc.from_flat(flat(states[old]), old, "e")
        target = kernel.documents.split(kernel.documents.render_pairs(flat(states[new])))
        found: Delta = doc.diff(target)
        return found

    parts = kernel.merge.compose(told(a, b), told(b, c))
    assert states[c] == patched(states[a], parts) == patched(states[a], told(a, c))


@quick
@given(start=STATES, history=HISTORIES, data=st.data())
def test_a_replica_with_a_hole_says_so_and_is_not_damaged(
    kernel: MergeKernel, start: State, history: list[Delta], data: st.DataObject
) -> None:
    """A commit is lost: all later ones are refused, until the difference closes the hole."""
    lost = data.draw(st.integers(1, len(history)))
    doc = kernel.documents.Doc.from_flat(flat(start), 0, "e")
    for version, delta in enumerate(history, 1):
        if version != lost:
            assert doc.apply(*delta, version - 1, version) is (version < lost)
    states = lives(start, history)
    assert states[lost - 1] == dict(doc.items())
    target = kernel.documents.split(kernel.documents.render_pairs(flat(states[-1])))

    assert doc.apply(*doc.diff(target), lost - 1, len(history))
    assert states[-1] == dict(doc.items())


# ### Writes ###


@st.composite
def updates(draw: Callable[..., Any], names: str = "abcdef") -> Apply:
    """A write of some keys; the base is set by the test."""
    keys = draw(st.lists(st.sampled_from(names), min_size=1, max_size=3, unique=True))
    cut = draw(st.integers(0, len(keys)))
    sets = {key: draw(st.sampled_from(["1", "2", "[]"])) for key in keys[:cut]}
    return write("s", sets, "".join(keys[cut:]))


PAST = st.lists(updates(), min_size=1, max_size=8)


def after(past: list[Apply], tombstones: int = 256) -> Model:
    """The model after a history of unconditional writes."""
    model = Model(tombstones)
    for request in past:
        model.apply(request)
    return model


def written(request: Apply, **changes: Any) -> Apply:
    request = copy.copy(request)
    for name, value in changes.items():
        setattr(request, name, value)
    return request


@quick
@given(past=PAST, one=updates("abc"), two=updates("def"), data=st.data())
def test_disjoint_updates_commute(
    past: list[Apply], one: Apply, two: Apply, data: st.DataObject
) -> None:
    """In every mode that looks at keys, and from any base: the state is the same either way."""
    model = after(past)
    mode = data.draw(st.sampled_from([Mode.REJECT, Mode.OVERWRITE, Mode.YIELD]))
    one, two = (
        written(r, mode=mode, base_version=data.draw(st.integers(-1, model.version)))
        for r in (one, two)
    )
    results = []
    for order in ((one, two), (two, one)):
        session = copy.deepcopy(model)
        answers = {id(r): session.apply(r) for r in order}
        said = [(answers[id(r)].status, answers[id(r)].conflicts) for r in (one, two)]
        results.append((session.values, session.version, said))

    assert results[0] == results[1]


@quick
@given(past=PAST, request=updates(), between=PAST, data=st.data())
def test_the_same_id_twice_is_once(
    past: list[Apply], request: Apply, between: list[Apply], data: st.DataObject
) -> None:
    """Whatever has happened since: nothing changes, and the first version is told."""
    model = after(past)
    request = written(request, mutation_id="m", base_version=model.version)
    first = model.apply(request)
    for other in between:
        model.apply(other)
    values, version = model.values, model.version
    again = model.apply(request)

    assert (Status.OK, Status.DUPLICATE) == (first.status, again.status)
    assert (first.version, values, version) == (again.version, model.values, model.version)


@quick
@given(past=PAST, request=updates())
def test_all_modes_are_equal_on_a_fresh_base(past: list[Apply], request: Apply) -> None:
    """Who has seen everything conflicts with nothing."""
    model = after(past)
    results = []
    for mode in Mode:
        session = copy.deepcopy(model)
        answer = session.apply(written(request, mode=mode, base_version=model.version))
        results.append((answer, session.values))

    assert [results[0]] * len(Mode) == results


@quick
@given(past=PAST, request=updates(), mode=st.sampled_from(Mode), data=st.data())
def test_what_is_newer_than_the_base_is_only_overwritten_on_demand(
    past: list[Apply], request: Apply, mode: Mode, data: st.DataObject
) -> None:
    """All modes but OVERWRITE leave such keys alone; other keys of an accepted write go in."""
    model = after(past, tombstones=2)
    base = data.draw(st.integers(0, model.version))
    before, changed = dict(model.values), dict(model.changed)
    answer = model.apply(written(request, mode=mode, base_version=base))
    newer = {key for key, at in changed.items() if at > base}
    wanted = dict(zip(request.sets[::2], request.sets[1::2], strict=True))

    if mode is not Mode.OVERWRITE:
        assert all(model.values.get(key) == before.get(key) for key in newer)
    if answer.status is Status.OK:
        kept = wanted.keys() - answer.conflicts.keys()
        assert {key: wanted[key] for key in kept}.items() <= model.values.items()
        assert not {*request.deletes} - answer.conflicts.keys() & model.values.keys()
    else:
        assert before == model.values


# ### A node between the store and its devices ###


class Node(RuleBasedStateMachine):
    """Commits reach a node late, twice, in any order or never; it may read what it misses.

    Its devices are sent what `Session` gives out. They must see each version in order, without a
    hole, and have the store's state of the version that they are at.
    """

    def __init__(self) -> None:
        super().__init__()
        self.states: list[State] = [{}]
        self.under_way: list[Change] = []
        self.session: Session[object] = Session("s")
        self.session.begin(Place(), [], [])
        self.copy: State = {}
        self.version = 0

    @rule(delta=deltas())
    def commit(self, delta: Delta) -> None:
        version = len(self.states)
        self.states.append(patched(self.states[-1], delta))
        self.under_way.append(Change(version, version - 1, "e", "d", f"m{version}", *delta))

    def _take(self, out: list[Change]) -> None:
        for change in out:
            assert self.version == change.prev_version < change.version
            delta = (list(change.sets), list(change.deletes))
            self.copy = patched(self.copy, delta)
            self.version = change.version

    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """Somebody comes, maybe from another node, with any version there ever was."""
        since = data.draw(st.integers(0, self.session.version))
        told = self.session.since_version(since)
        if told is not None:
            delta = (split(told[0]).flat(), [key.encode() for key in json.loads(told[1])])
            assert self.copy == patched(self.states[since], delta)

    @rule(data=st.data(), keep=st.booleans())
    def deliver(self, data: st.DataObject, keep: bool) -> None:
        """Any of those under way; it may come again."""
        if not self.under_way:
            return
        index = data.draw(st.integers(0, len(self.under_way) - 1))
        change = self.under_way[index] if keep else self.under_way.pop(index)
        out: list[Change] = []
        assert self.session.offer(change, out) is not OfferResult.FOREIGN
        self._take(out)

    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        if self.under_way:
            self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1)))

    @rule(data=st.data())
    def read_the_difference(self, data: st.DataObject) -> None:
        """From the node's place to any version up to the present; others come meanwhile."""
        begin = self.session.read().version
        end = data.draw(st.integers(begin, len(self.states) - 1))
        new, out = self.states[end], []
        for change in (
            data.draw(st.lists(st.sampled_from(self.under_way), max_size=3))
            if (self.under_way)
            else []
        ):
            assert self.session.offer(change, out) is OfferResult.HELD
        sets = [part for key, value in new.items() for part in (key, value)]
        gone = [key for at in range(begin, end) for key in self.states[at] if key not in new]
        self.session.catch_up(Place("e" if end else "", end), sets, list(dict.fromkeys(gone)), out)
        assert self.session.release(out) is not OfferResult.FOREIGN
        self._take(out)

    @invariant()
    def devices_have_the_state_of_their_version(self) -> None:
        assert self.states[self.version] == self.copy
        assert self.session.version == self.version
        if self.session.doc is not None:
            assert self.copy == dict(self.session.doc.items())


TestNode = Node.TestCase
TestNode.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)
