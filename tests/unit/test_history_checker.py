"""The history checker: it has nothing to say about a right history, and finds what is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.history import model
from support.history.checker import RULES, check
from support.history.lost import confirmed, forget_lost
from support.history.records import ABSENT, Answer, Call, History, State, Step, Stream

KEYS = ("a", "b", "c")
OPERATIONS = ("SET", "DELETE", "INCR", "APPEND", "SEVERAL", "SETNX", "CAS", "MAX", "MERGE")


class Service:
    """A service that does everything right, one call after another or overlapping."""

    def __init__(self) -> None:
        self.history = History(streams=[Stream("d0"), Stream("d1")])
        self.state: State = {}
        self.changed: dict[str, int] = {}
        self.version = self.now = 0

    def tick(self) -> int:
        self.now += 10
        return self.now

    def write(self, payload: dict[str, Any], told: bool = True) -> Call:
        """One write; with `told` False its own acknowledgement is lost, and it is repeated."""
        number = len(self.history.calls)
        call = Call((f"d{number % 2}", f"m{number}"), payload, self.tick(), place=(1, number))
        call.attempts = 1 if told else 2
        call.answers.append(self._do(call, told))
        call.returned = self.tick()
        self.history.calls.append(call)
        return call

    def _do(self, call: Call, told: bool) -> Answer:
        try:
            effect = model.effect(
                call.payload,
                lambda key: self.state.get(key, ABSENT),
                lambda key: self.changed.get(key, 0),
            )
        except model.Refusal as refusal:
            return Answer(self.version, None, refusal.code, refusal.conflicts)
        if not effect and self.version:
            return Answer(self.version)
        self.version += 1
        merged = self.state | effect
        self.state = {key: value for key, value in merged.items() if value is not ABSENT}
        self.changed |= dict.fromkeys(effect, self.version)
        self._publish(Step(self.version - 1, self.version, "e", effect, call.writer))
        return Answer(self.version, effect) if told else Answer(self.version)

    def _publish(self, step: Step) -> None:
        for stream in self.history.streams:
            stream.steps.append(step)
            stream.version, stream.copy = step.version, dict(self.state)

    def over(self) -> History:
        self.history.final, self.history.final_version = dict(self.state), self.version
        return self.history


@st.composite
def payloads(draw: Callable[..., Any]) -> dict[str, Any]:
    """Any update that the model knows; keys of lists and sums are their own."""
    operation, key = draw(st.sampled_from(OPERATIONS)), draw(st.sampled_from(KEYS))
    value = draw(st.integers(0, 3))
    guard = draw(st.sampled_from([{}, {}, {"base_version": draw(st.integers(0, 4))}]))
    match operation:
        case "SEVERAL":
            return {"changes": {key: value}, "deleted_keys": [*{*KEYS} - {key}][:1], **guard}
        case "INCR" | "MAX":
            return {"key": f"n{key}", "value": value + 1, "operation": operation}
        case "APPEND":
            return {"key": f"l{key}", "value": value, "operation": operation}
        case "MERGE":
            return {"key": f"o{key}", "value": {"x": value}, "operation": operation}
        case "CAS":
            expected = draw(st.sampled_from([{}, {"expected": value}]))
            return {"key": key, "value": value + 1, "operation": operation, **expected}
    return {"key": key, "value": value, "operation": operation, **guard}


@settings(deadline=None, max_examples=150)
@given(writes=st.lists(st.tuples(payloads(), st.booleans()), min_size=1, max_size=30))
def test_a_right_history_has_no_anomalies(writes: list[tuple[dict[str, Any], bool]]) -> None:
    """Whatever is written, answered or repeated; lists may hold equal elements only by asking."""
    service, elements = Service(), 0
    for payload, told in writes:
        if payload.get("operation") == "APPEND":
            elements += 1
            payload = {**payload, "value": f"e{elements}"}
        service.write(payload, told)
    history = service.over()

    assert {} == check(history)
    for stream in history.streams:
        stream.steps.clear()
    assert {} == check(history)


def example() -> History:
    """Six writes: d0 and d1 in turns."""
    service = Service()
    service.write({"key": "a", "value": 1})
    service.write({"key": "n", "value": 2, "operation": "INCR"})
    service.write({"key": "l", "value": "x", "operation": "APPEND"})
    service.write({"key": "a", "value": 2, "base_version": 1})
    service.write({"key": "a", "value": 3, "base_version": 1})
    service.write({"key": "l", "value": "y", "operation": "APPEND"})
    return service.over()


def wrong_version(history: History) -> None:
    history.calls[2].answers = [replace(history.calls[2].answers[0], version=2)]


def two_versions(history: History) -> None:
    history.calls[0].answers.append(replace(history.calls[0].answers[0], version=3))


def nobody(history: History) -> None:
    del history.calls[1]


def left_out(history: History) -> None:
    history.final_version = 7


def went_back(history: History) -> None:
    history.calls[5].invoked, history.calls[5].returned = 1, 2


def old_answer(history: History) -> None:
    history.calls[4].answers = [replace(history.calls[4].answers[0], version=3)]


def out_of_order(history: History) -> None:
    history.calls[3].place, history.calls[1].place = (1, 0), (1, 9)


def other_effect(history: History) -> None:
    history.calls[0].answers = [replace(history.calls[0].answers[0], changes={"a": 9})]


def other_state(history: History) -> None:
    history.final = history.final | {"a": 7}


def refused_without_reason(history: History) -> None:
    history.calls[4].payload = {"key": "z", "value": 1, "base_version": 1}


def other_conflict(history: History) -> None:
    history.calls[4].answers = [replace(history.calls[4].answers[0], conflicts={"a": 1})]


def refused_and_done(history: History) -> None:
    history.calls[3].answers = [Answer(3, None, "version_conflict", {"a": 1})]


def told_other_version(history: History) -> None:
    history.calls[0].answers.append(Answer(4))


def nothing_done(history: History) -> None:
    history.calls[4] = replace(history.calls[4], payload={"key": "b", "value": 1})
    history.calls[4].answers = [Answer(4)]


def overwritten(history: History) -> None:
    history.calls[3].payload = {"key": "a", "value": 2, "base_version": 0}


def hole(history: History) -> None:
    del history.streams[0].steps[2]


def repeated(history: History) -> None:
    history.streams[0].steps.insert(2, history.streams[0].steps[1])


def half_a_step(history: History) -> None:
    history.streams[0].steps[1:3] = [Step(1, 3, "e", {"n": 2})]


def false_state(history: History) -> None:
    history.streams[0].steps.insert(2, Step(0, 2, "e", full={"a": 1}))


def left_behind(history: History) -> None:
    history.streams[0].version = 4


def other_copy(history: History) -> None:
    history.streams[0].copy = {}


def lost_element(history: History) -> None:
    history.final["l"] = ["y"]


def lost_sum(history: History) -> None:
    history.final["n"] = 1


def twice_in_list(history: History) -> None:
    history.final["l"] = ["x", "y", "x"]


def twice_added(history: History) -> None:
    history.final["n"] = 4


def foreign_element(history: History) -> None:
    history.final["l"] = ["x", "y", "z"]


def new_epoch(history: History) -> None:
    history.streams[0].steps[2] = replace(history.streams[0].steps[2], epoch="f")


def unknown(history: History) -> None:
    history.calls[1].answers = []


DAMAGE: list[tuple[Callable[[History], None], str]] = [
    *((damage, "versions") for damage in (wrong_version, two_versions, nobody, left_out)),
    *((damage, "realtime") for damage in (went_back, old_answer)),
    (out_of_order, "fifo"),
    *((damage, "replay") for damage in (other_effect, other_state)),
    *((d, "answer") for d in (refused_without_reason, other_conflict, refused_and_done)),
    *((damage, "answer") for damage in (told_other_version, nothing_done)),
    (overwritten, "guard"),
    *((damage, "stream") for damage in (hole, repeated, half_a_step, false_state)),
    *((damage, "converge") for damage in (left_behind, other_copy)),
    *((damage, "lost") for damage in (lost_element, lost_sum)),
    *((damage, "twice") for damage in (twice_in_list, twice_added, foreign_element)),
    (new_epoch, "epoch"),
    (unknown, "unsettled"),
]


@pytest.mark.parametrize(
    ("damage", "rule"), DAMAGE, ids=lambda part: getattr(part, "__name__", part)
)
def test_damage_is_found(damage: Callable[[History], None], rule: str) -> None:
    """One thing wrong in a right history is reported under its rule."""
    history = example()
    assert {} == check(history)
    damage(history)

    assert rule in check(history)


def test_every_rule_can_fail() -> None:
    """No rule is there that no test has seen fail."""
    assert {*RULES} == {rule for _, rule in DAMAGE}


def failed_over() -> History:
    """Versions 1 and 2 are true; `d1` was shown another 2, which was lost, and then the whole."""
    service = Service()
    service.write({"key": "a", "value": 1})
    service.write({"key": "b", "value": 2})
    history = service.over()
    history.final_lineage = "l2"
    first, second = history.streams[0].steps
    true = [replace(first, lineage="l1"), replace(second, lineage="l2", prev_lineage="l1")]
    lost = replace(true[1], lineage="lost", changes={"b": 3}, writer=("d1", "lost"))
    whole = Step(0, 2, "e", full={"a": 1, "b": 2}, lineage="l2")
    history.streams[0].steps = [*true]
    history.streams[1].steps = [true[0], lost, whole]
    return history


def test_what_a_failover_lost_is_left_out_when_it_was_replaced() -> None:
    """Without the whole state behind it, the checker complains."""
    history = failed_over()
    assert check(history)
    assert (1, {(2, "lost")}) == (forget_lost(history), history.lost)
    assert {} == check(history)

    history = failed_over()
    history.streams[1].steps.pop()
    assert (0, set()) == (forget_lost(history), history.lost)
    assert "versions" in check(history)


def leapt() -> History:
    """Version 3 is the last. Nobody saw the true 2: `d0` leapt from 1 to 3, `d1` was shown a 2 that
    was lost, and then the whole state."""
    service = Service()
    for number, key in enumerate("abc"):
        service.write({"key": key, "value": number}, told=False)
    history = service.over()
    history.final_lineage = "l3"
    first = replace(history.streams[0].steps[0], lineage="l1")
    delta = Step(1, 3, "e", {"b": 1, "c": 2}, None, None, "l3", "l1")
    lost = Step(1, 2, "e", {"b": 9}, None, None, "lost", "l1")
    whole = Step(0, 3, "e", full=dict(history.final), lineage="l3")
    history.streams[0].steps = [first, delta]
    history.streams[1].steps = [first, lost, whole]
    history.calls[1].answers = [Answer(2)]
    return history


def test_the_only_step_that_was_seen_may_be_the_lost_one() -> None:
    """Places are confirmed through steps of any length, and never because there is no other."""
    history = leapt()
    assert "stream" in check(history)
    assert (1, {(2, "lost")}) == (forget_lost(history), history.lost)
    assert {} == check(history)
    assert {(3, "l3"), (1, "l1")} == confirmed(history)


def test_an_acknowledged_place_is_never_forgotten() -> None:
    """Not even when whole states have cut every way to it: that it is lost is found out."""
    history = leapt()
    history.calls[1].answers = [Answer(2, {"b": 9}, lineage="lost")]
    assert (0, set()) == (forget_lost(history), history.lost)
    assert "replay" in check(history)


def test_what_is_not_confirmed_counts_as_lost_where_it_was_replaced() -> None:
    """Also when it was true: so the number must be 0 on a store that loses nothing."""
    history = leapt()
    whole = history.streams[1].steps[2]
    history.streams[0].steps[1] = whole
    assert {(3, "l3")} == confirmed(history)
    assert 3 == forget_lost(history)
    assert [[whole], [whole]] == [stream.steps for stream in history.streams]


@pytest.mark.parametrize(("lineage", "wrong"), [("lost", False), ("l2", True), ("", True)])
def test_a_base_is_lost_only_when_it_was_of_the_lost_history(lineage: str, wrong: bool) -> None:
    """A refusal of a base in the true one is found out, also where others were lost."""
    history = failed_over()
    forget_lost(history)
    payload = {"key": "a", "value": 9, "base_version": 2, "base_lineage": lineage}
    call = Call(("d0", "guarded"), payload, 100, 110, [Answer(2, None, "base_lost")], attempts=1)
    history.calls.append(call)
    assert wrong == ("answer" in check(history))


def test_an_acknowledged_write_that_a_failover_lost_is_found_out() -> None:
    """Nobody may be told that it was done: what devices were shown of it is left out, it is not."""
    history = failed_over()
    forget_lost(history)
    done = Answer(2, {"b": 3})
    history.calls.append(Call(("d1", "lost"), {"key": "b", "value": 3}, 100, 110, [done]))
    assert "versions" in check(history)
