"""Laws of the call over random evidence: late, repeated, out of order, lost, and once a lie.

A model plays the truth: users make and lose connections. What it sends is what a provider and the
clients would send. Users "ann" and "bob" have clients that report in every step, "cy" never does.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.voice.call import ChannelCall
from syncbridge.voice.evidence import Evidence, Joined, Left, Polled, Source, Vacant

USERS = ("ann", "bob", "cy")
REPORTING = ("ann", "bob")
Connection = tuple[str, str]


class Step(NamedTuple):
    """`wait` ms, then something happens; what is said of it arrives at these later steps."""

    wait: int
    what: str
    which: int
    arrivals: list[int]


STEPS = st.lists(
    st.builds(
        Step,
        st.integers(0, 50_000),
        st.sampled_from(["join", "join", "leave", "poll", "lie", "hang up", "empty"]),
        st.integers(0, 5),
        st.lists(st.integers(0, 6), max_size=3),
    ),
    max_size=40,
)


class Truth:
    """Who is really connected. The witness never leaves, so that no honest poll is empty."""

    def __init__(self) -> None:
        self.there: list[Connection] = [("witness", "w")]
        self.made = 0
        self.lied = False

    def play(self, step: Step, now: int) -> Evidence | None:
        """Let it happen, and answer what is said of it."""
        if step.what == "join":
            self.made += 1
            self.there.append((USERS[step.which % 3], f"c{self.made}"))
            return said(Joined, self.there[-1], now, Source.WEBHOOK)
        if step.what in ("leave", "hang up") and len(self.there) > 1:
            gone = self.there.pop(1 + step.which % (len(self.there) - 1))
            source = Source.WEBHOOK if step.what == "leave" else Source.CLIENT
            return said(Left, gone, now, source)
        if step.what == "empty":
            return Polled(generation=1, at=now, present=())
        present = list(self.there)
        if step.what == "lie" and not self.lied and step.which % 2:
            self.lied = True
            return Vacant(generation=1, at=now)
        if step.what == "lie" and not self.lied and len(present) > 1:
            self.lied = True
            del present[1 + step.which % (len(present) - 1)]
        return Polled(generation=1, at=now, present=tuple(present))

    def beats(self, now: int) -> Iterator[Evidence]:
        """What the clients report."""
        for connection in self.there:
            if connection[0] in REPORTING:
                yield said(Joined, connection, now, Source.CLIENT)


def absent(truth: Truth, step: Step) -> bool:
    """Whether the user of a step has no connection."""
    return USERS[step.which % 3] not in {user for user, _ in truth.there}


def said(
    kind: type[Joined] | type[Left], connection: Connection, at: int, source: Source
) -> Evidence:
    user_id, connection_id = connection
    return kind(generation=1, at=at, source=source, user_id=user_id, connection_id=connection_id)


def twice(call: ChannelCall, now: int, look: Callable[[int], Evidence]) -> int:
    """Two looks, the second after the first was applied; the time after them."""
    for _ in range(2):
        call.apply(look(now + 1), now + 2)
        now += 2
    return now


def held(call: ChannelCall) -> set[Connection]:
    return {(user, connection) for user in call.users for connection in call.connections(user)}


def played(steps: list[Step]) -> tuple[ChannelCall, Truth, int]:
    """Play the steps; on the way no connection is let go that is there."""
    call, truth, now = ChannelCall(0), Truth(), 0
    post: list[tuple[int, Evidence]] = [(0, said(Joined, truth.there[0], 0, Source.WEBHOOK))]
    for number, step in enumerate(steps):
        now += step.wait
        evidence = truth.play(step, now)
        if evidence is not None:
            post += [(number + later, evidence) for later in step.arrivals]
        arrived = [item for due, item in post if due <= number]
        post = [(due, item) for due, item in post if due > number]
        for item in [*truth.beats(now), *arrived]:
            before = held(call)
            call.apply(item, now)
            assert not (before - held(call)) & set(truth.there)
    return call, truth, now


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_nobody_is_removed_who_is_there(steps: list[Step]) -> None:
    """Zero false removals, whatever is late, repeated, swapped or lost."""
    played(steps)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_two_good_polls_bring_the_truth(steps: list[Step]) -> None:
    """After the last change two polls, one after the other, leave exactly who is there."""
    call, truth, now = played(steps)
    twice(call, now, lambda at: Polled(generation=1, at=at, present=tuple(truth.there)))

    assert held(call) == set(truth.there)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_two_vacant_looks_bring_the_truth(steps: list[Step]) -> None:
    """Everybody leaves and nothing is heard of it: two looks, one after the other, show it."""
    call, _, now = played(steps)
    twice(call, now, lambda at: Vacant(generation=1, at=at))

    assert held(call) == set()


@settings(deadline=None, max_examples=300)
@given(STEPS, st.booleans())
def test_clients_with_dead_media_do_not_outweigh_two_good_polls(
    steps: list[Step], named: bool
) -> None:
    """They go on reporting connections that are gone, or were never there, or without a name.

    The first poll may be what lets such a report in, as it shows the user: so two more count.
    """
    call, truth, now = played(steps)
    dead = [("ann", f"c{n}") for n in range(truth.made + 1)] + [("bob", ""), ("cy", "")]
    for number in range(5):
        now += 1
        for user, name in dead:
            call.apply(said(Joined, (user, name if named else ""), now, Source.CLIENT), now)
        if number >= 3:
            assert held(call) == set(truth.there)
        present = tuple(truth.there)
        call.apply(Polled(generation=1, at=now + 1, present=present), now + 2)
        now += 2


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_one_good_poll_undoes_what_two_wrong_ones_did(steps: list[Step]) -> None:
    """Polls have removed everybody; who is there is back with the next one that is right."""
    call, truth, now = played(steps)
    now = twice(call, now, lambda at: Vacant(generation=1, at=at))
    call.apply(Polled(generation=1, at=now + 1, present=tuple(truth.there)), now + 2)

    assert held(call) == set(truth.there)


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_whom_a_poll_without_ids_has_shown_stays(steps: list[Step]) -> None:
    """Users with one connection at a time come, go and come again; webhooks are late or lost."""
    call, truth, now = ChannelCall(0), Truth(), 0
    post: list[tuple[int, Evidence]] = []
    shown: set[Connection] = set()
    for number, step in enumerate(steps):
        now += step.wait + 1
        if step.what == "poll":
            users = tuple({(user, "") for user, _ in truth.there})
            call.apply(Polled(generation=1, at=now, present=users), now)
            shown = set(truth.there)
        elif step.what == "leave" or (step.what == "join" and absent(truth, step)):
            told = truth.play(step, now)
            post += [(number + later, told) for later in step.arrivals if told is not None]
        for _, evidence in [item for item in post if item[0] <= number]:
            call.apply(evidence, now)
        post = [item for item in post if item[0] > number]
        assert {user for user, _ in shown & set(truth.there)} <= set(call.users)


@settings(deadline=None)
@given(STEPS)
def test_times_and_peak_add_up(steps: list[Step]) -> None:
    """Peak is never below who is there, and time of participants never runs backwards."""
    call, _, now = played(steps)
    figures, later = call.statistics(now), call.statistics(now + 10)

    assert figures.peak >= figures.participants == len(call.users)
    assert later.total_ms - figures.total_ms == 10 * figures.participants
