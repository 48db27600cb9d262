"""Laws of the speaking throttle over random reports, and the agreement of kernel and twin."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.kernels import _throttle_py
from syncbridge_core import throttle

INTERVAL, CLEAR = 250, 2000


class Step(NamedTuple):
    """After `wait` ms: a report, or a drop of a participant or (None) of a channel."""

    wait: int
    drop: bool
    channel: int
    who: str | None
    speaking: bool
    collect: bool


WAITS = st.one_of(st.integers(0, 60), st.sampled_from([-5, 0, 249, 250, 251, 1999, 2000, 2500]))
CHANNELS = st.integers(0, 2)
REPORTS = st.builds(
    Step, WAITS, st.just(False), CHANNELS, st.sampled_from("abcd"), st.booleans(), st.booleans()
)
DROPS = st.builds(
    Step, WAITS, st.just(True), CHANNELS, st.sampled_from(["a", "b", None]), *[st.booleans()] * 2
)
STEPS = st.lists(st.one_of(REPORTS, REPORTS, REPORTS, DROPS), max_size=60)
EAGER = st.lists(REPORTS.map(lambda step: step._replace(wait=abs(step.wait), collect=True)))

Told = list[tuple[int, tuple[int, str | bytes], bool]]


def collected(speech: throttle.Throttle, now: int) -> Told:
    """What `collect` hands out, one line a change."""
    return [(now, (c, who), said) for c, batch in speech.collect(now) for who, said in batch]


def catch_up(speech: throttle.Throttle, now: int) -> Told:
    """Collect at each moment that `next_due` names, up to `now`."""
    told: Told = []
    while (due := speech.next_due()) is not None and due <= now:
        told += collected(speech, due)
    return told


def played(speech: throttle.Throttle, steps: Iterable[Step]) -> tuple[Told, int]:
    """Everything that a listener hears of these reports, and the time of the last one."""
    told: Told = []
    now = 0
    for step in steps:
        now += step.wait
        told += catch_up(speech, now)
        assert step.who is not None
        speech.report(step.channel, step.who, step.speaking, now)
        told += collected(speech, now)
    return told, now


@settings(deadline=None, max_examples=300)
@given(STEPS)
def test_kernel_and_twin_agree(steps: list[Step]) -> None:
    """Any interleaving has the same answers, batches, wake-ups and bounds on both sides."""
    twins = [
        module.Throttle(INTERVAL, CLEAR, max_participants=3, max_channels=2)
        for module in (throttle, _throttle_py)
    ]
    now = 10
    for step in steps:
        now += step.wait
        answers = [answer(speech, step, now) for speech in twins]
        assert answers[0] == answers[1]


def answer(speech: throttle.Throttle, step: Step, now: int) -> tuple[object, ...]:
    """One step and everything that can be seen of it."""
    if step.drop:
        first: object = speech.drop(step.channel, step.who)
    else:
        first = speech.report(step.channel, step.who or "", step.speaking, now)
    batches = speech.collect(now) if step.collect else None
    counts = (speech.held, speech.channels, speech.refused, speech.next_due())
    return first, batches, counts, [speech.snapshot(c) for c in range(3)]


@settings(deadline=None)
@given(EAGER)
def test_listeners_end_with_the_last_report(steps: list[Step]) -> None:
    """Before anybody is cleared, the last change heard of each is what was reported last."""
    speech = throttle.Throttle(INTERVAL, clear_ms=10**9)
    told, now = played(speech, steps)
    told += catch_up(speech, now + INTERVAL)

    reported = {(s.channel, s.who): s.speaking for s in steps}
    heard = {who: said for _, who, said in told}
    assert {w for w, said in heard.items() if said} == {w for w, r in reported.items() if r}
    assert {(c, w) for c in range(3) for w in speech.snapshot(c)} == {
        w for w, said in heard.items() if said
    }


@settings(deadline=None)
@given(EAGER)
def test_changes_alternate_and_keep_their_distance(steps: list[Step]) -> None:
    """Of one participant each change differs from the one before, an interval later or more."""
    speech = throttle.Throttle(INTERVAL, CLEAR)
    told, now = played(speech, steps)
    told += catch_up(speech, now + 2 * CLEAR)

    for name in {who for _, who, _ in told}:
        mine = [(at, said) for at, who, said in told if who == name]
        assert mine[0][1]
        assert all(b[0] - a[0] >= INTERVAL and b[1] != a[1] for a, b in pairwise(mine))


@settings(deadline=None)
@given(EAGER)
def test_a_change_outside_a_window_is_immediate(steps: list[Step]) -> None:
    """A report that changes what listeners know, with no change in the last interval, is heard."""
    speech = throttle.Throttle(INTERVAL, CLEAR)
    last: dict[object, int] = {}
    wanted: dict[object, tuple[bool, int]] = {}
    now = 0
    for step in steps:
        now += step.wait
        for at, who, said in catch_up(speech, now):
            last[who] = at
            if not said and wanted[who][0]:
                wanted[who] = (False, at)
        name, known = (step.channel, step.who or ""), step.who in speech.snapshot(step.channel)
        due = speech.report(step.channel, name[1], step.speaking, now)
        free = now - last.get(name, -INTERVAL) >= INTERVAL
        assert bool(due) == (free and step.speaking != known)
        before, since = wanted.get(name, (False, -(10**9)))
        rest = now - since >= throttle.REST_WINDOWS * INTERVAL
        if before != step.speaking:
            assert due in (0, throttle.RESTED if rest else throttle.CHANGED)
            wanted[name] = (step.speaking, now)
        last |= {who: at for at, who, _ in collected(speech, now)}


@settings(deadline=None)
@given(EAGER)
def test_everything_is_forgotten_in_the_end(steps: list[Step]) -> None:
    """Without further reports all are cleared, listeners know it, and nothing is held."""
    speech = throttle.Throttle(INTERVAL, CLEAR)
    told, now = played(speech, steps)
    told += catch_up(speech, now + CLEAR + (1 + throttle.REST_WINDOWS) * INTERVAL)

    assert not any({who: said for _, who, said in told}.values())
    assert (speech.held, speech.channels, speech.next_due()) == (0, 0, None)
