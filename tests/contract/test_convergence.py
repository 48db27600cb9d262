"""Laws of the reference model, which the scripts are held to, and convergence of what follows it.

The model is compared with Redis in `test_model`; so what is shown here for the model, quickly and
for many histories, holds for the server.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from contract.test_model import steps, writes
from support.contract import model
from syncbridge.kernels import Doc, compose
from syncbridge.records.sessions import Apply, Mode, Place, Status
from syncbridge.session import Change, Session

quick = settings(deadline=None, max_examples=200)

HISTORIES = st.lists(writes() | steps(), max_size=15)
NAMES = [f"k{number}".encode() for number in range(9)]


def after(history: list[Apply]) -> model.Session:
    session = model.Session(tombstones=4)
    for request in history:
        session.apply(request)
    return session


def change(keys: list[bytes], value: bytes, base: int, mode: Mode, device: str) -> Apply:
    """Sets the first half of some keys and deletes the others."""
    cut = (len(keys) + 1) // 2
    sets = [part for key in keys[:cut] for part in (key, value)]
    return Apply("", "u", device, sets, keys[cut:], base_version=base, mode=mode)


@st.composite
def disjoint(draw: Callable[..., Any]) -> tuple[Apply, Apply]:
    """Two change sets on different keys."""
    names = draw(st.permutations(NAMES))
    cut, end = draw(st.integers(1, 4)), draw(st.integers(5, 9))
    mode = draw(st.sampled_from([Mode.REJECT, Mode.YIELD, Mode.OVERWRITE]))
    bases = st.integers(0, 12)
    return (
        change(names[:cut], b'"one"', draw(bases), mode, "d"),
        change(names[cut:end], b'"two"', draw(bases), mode, "e"),
    )


@quick
@given(history=HISTORIES, both=disjoint())
def test_disjoint_updates_commute(history: list[Apply], both: tuple[Apply, Apply]) -> None:
    """In every mode, from any base: which of the two comes first does not matter."""
    one, other = after(history), after(history)
    base = one.version
    first, second = both
    for request in both:
        request.base_version = min(request.base_version, base)
    answers = [one.apply(first).status, one.apply(second).status]
    swapped = [other.apply(second).status, other.apply(first).status]

    assert one.values == other.values
    if one.floor == other.floor:
        assert answers == swapped[::-1]


@quick
@given(
    history=HISTORIES,
    names=st.lists(st.sampled_from(NAMES), unique=True, max_size=5),
    value=st.sampled_from([b"1", b'"new"']),
)
def test_a_fresh_base_knows_no_strategy(
    history: list[Apply], names: list[bytes], value: bytes
) -> None:
    """From the current version every mode does the same, without a conflict."""
    results = []
    for mode in (Mode.REJECT, Mode.YIELD, Mode.OVERWRITE, Mode.WHOLE):
        session = after(history)
        result = session.apply(change(names, value, session.version, mode, "d"))
        results.append((result.status, result.version, session.values, result.conflicts))

    assert all(result == results[0] for result in results)
    assert {} == results[0][3]


@quick
@given(history=HISTORIES, request=writes() | steps())
def test_twice_is_once(history: list[Apply], request: Apply) -> None:
    """The same mutation id again changes neither state nor version."""
    session = after(history)
    request.mutation_id = "of its own"
    first = session.apply(request)
    state = deepcopy((session.values, session.version, session.changed))
    again = session.apply(request)

    assert state == (session.values, session.version, session.changed)
    if first.status is Status.OK:
        assert (Status.DUPLICATE, first.version) == (again.status, again.version)
    else:
        assert first == again


@quick
@given(history=HISTORIES, request=writes())
def test_only_overwriting_writes_over_the_newer(history: list[Apply], request: Apply) -> None:
    """REJECT, YIELD and WHOLE never change a key that is newer than their base."""
    session = after(history)
    before = deepcopy(session.changed)
    result = session.apply(request)
    if request.mode is not Mode.OVERWRITE and request.base_version >= 0:
        touched = {*result.sets, *result.deletes}
        assert not [k for k in touched if before.get(k, 0) > request.base_version]


@quick
@given(history=HISTORIES, data=st.data())
def test_deltas(history: list[Apply], data: st.DataObject) -> None:
    """state(N) + delta(N) is the present; deltas compose; twice is once."""
    states = [(0, {})]
    session = model.Session(tombstones=4)
    for request in history:
        session.apply(request)
        states.append((session.version, dict(session.values)))
    version, old = data.draw(st.sampled_from(states))
    delta = session.since(version)
    if delta is None:
        assert version < session.floor
        return
    sets, deletes = delta
    patched = {k: v for k, v in (old | sets).items() if k not in deletes}

    assert session.values == patched
    assert session.values == {k: v for k, v in (patched | sets).items() if k not in deletes}
    composed = compose((_flat(sets), list(deletes)), (_flat(sets), list(deletes)))
    assert (_flat(sets), set(deletes)) == (composed[0], set(composed[1]))


def _flat(values: model.Texts) -> list[bytes]:
    return [part for pair in values.items() for part in pair]


class Followers(RuleBasedStateMachine):
    """A server, a node that hears of its commits in any order, and a device behind that node.

    The stream to the node loses, repeats and reorders; the node mends holes by reading the
    difference. The device gets what the node gives, with losses where the connection breaks, and
    comes back with its version. In the end all have the server's state.
    """

    @initialize()
    def begin(self) -> None:
        self.server = model.Session(tombstones=4)
        self.server.apply(Apply("", "u", "d", [b"k0", b"1"], []))
        self.node: Session[None] = Session("s")
        out: list[Change] = []
        self.node.begin(Place("e", 1), [b"k0", b"1"], out)
        self.device, self.device_version = {b"k0": b"1"}, 1
        self.stream: list[Change] = []

    @rule(request=writes() | steps())
    def write(self, request: Apply) -> None:
        result = self.server.apply(request)
        if result.status is Status.OK and result.version != result.prev_version:
            sets, deletes = _flat(result.sets), list(result.deletes)
            commit = Change(result.version, result.prev_version, "e", "d", "", sets, deletes)
            self.stream.append(commit)

    @rule(data=st.data(), keep=st.booleans(), lost=st.booleans())
    def deliver(self, data: st.DataObject, keep: bool, lost: bool) -> None:
        """Any commit of the stream reaches the node; it may come again."""
        if not self.stream:
            return
        change = data.draw(st.sampled_from(self.stream))
        if not keep:
            self.stream.remove(change)
        out: list[Change] = []
        self.node.offer(change, out)
        self._give(out, lost)

    @rule()
    def lose(self) -> None:
        self.stream.clear()

    @rule(lost=st.booleans())
    def mend(self, lost: bool) -> None:
        """The node reads what changed since what it has."""
        out: list[Change] = []
        delta = self.server.since(self.node.version)
        now = self.server.version
        if delta is None:
            self.node.read()
            self.node.replace(Place("e", now), _flat(self.server.values))
        else:
            sets, deletes = _flat(delta[0]), list(delta[1])
            self.node.read()
            self.node.catch_up(Place("e", now), sets, deletes, out)
        self.node.release(out)
        self._give(out, lost)

    @rule()
    def reconnect(self) -> None:
        """The device comes back and is given the difference, or everything."""
        delta = self.server.since(self.device_version)
        if delta is None:
            self.device = dict(self.server.values)
        else:
            kept = {k: v for k, v in self.device.items() if k not in delta[1]}
            self.device = kept | delta[0]
        self.device_version = self.server.version

    def _give(self, changes: list[Change], lost: bool) -> None:
        """The rule of a client: old is dropped, what fits is applied, a hole is left alone."""
        for change in changes:
            if not lost and change.prev_version <= self.device_version < change.version:
                sets = dict(zip(change.sets[::2], change.sets[1::2], strict=True))
                kept = {k: v for k, v in self.device.items() if k not in change.deletes}
                self.device, self.device_version = kept | sets, change.version

    @invariant()
    def each_is_a_state_of_the_server(self) -> None:
        if not hasattr(self, "server"):
            return
        if self.node.version == self.server.version and self.node.doc is not None:
            assert self.server.values == dict(self.node.doc.items())
        if self.device_version == self.server.version:
            assert self.server.values == self.device

    def teardown(self) -> None:
        """Whatever happened, one read and one reconnect bring everybody together."""
        if not hasattr(self, "server"):
            return
        self.mend(lost=True)
        self.reconnect()
        assert self.node.version == self.device_version == self.server.version
        assert isinstance(self.node.doc, Doc)
        assert self.server.values == dict(self.node.doc.items()) == self.device


TestFollowers = Followers.TestCase
TestFollowers.settings = settings(deadline=None, max_examples=100, stateful_step_count=30)
