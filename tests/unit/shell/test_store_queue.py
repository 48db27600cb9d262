"""The store_queue: each request is answered, whatever fails about it or about another one."""

from collections.abc import Sequence
from typing import Any

from syncbridge.errors import ErrorCode, StoreUnavailable
from syncbridge.records.sessions import Deliver, Read, Request
from syncbridge_server.gateway.store_queue import HandlingFailed, StoreQueue


class Stored:
    """A store that answers with the session's id; "odd" cannot be written, "away" is refused."""

    apart = False

    def submit(self, requests: Sequence[Request], deliver: Deliver) -> None:
        sids = [request.sid for request in requests if isinstance(request, Read)]
        if "odd" in sids:
            raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "a surrogate")
        if "away" in sids:
            raise StoreUnavailable("away")
        deliver(sids)  # type: ignore[arg-type]


def told(sids: Sequence[str], failing: str = "") -> dict[str, list[Any]]:
    """What each request's reply function is told; that of `failing` raises."""
    store_queue = StoreQueue(Stored(), lambda: None)  # type: ignore[arg-type]
    heard: dict[str, list[Any]] = {sid: [] for sid in sids}

    def reply(answer: Any, sid: str) -> None:
        heard[sid].append(answer)
        if sid == failing:
            raise ZeroDivisionError

    for sid in sids:
        store_queue.ask(Read(sid), reply, sid)
    store_queue.dispatch()
    assert 0 == store_queue.in_flight
    return heard


def test_a_reply_that_fails_is_told_so() -> None:
    """Once more, with an error that a client can be given; the others hear their answers."""
    heard = told(["a", "b", "c"], failing="b")

    assert (["a"], ["c"]) == (heard["a"], heard["c"])
    first, second = heard["b"]
    assert "b" == first
    assert isinstance(second, HandlingFailed)
    assert (ErrorCode.INTERNAL, True) == (second.code, second.code.retryable)


def test_a_request_that_cannot_be_written_costs_only_itself() -> None:
    """Those that were asked in the same tick are sent."""
    heard = told(["a", "odd", "c"])

    assert (["a"], ["c"]) == (heard["a"], heard["c"])
    assert [HandlingFailed] == [type(answer) for answer in heard["odd"]]


def test_a_refusal_is_told_to_all() -> None:
    """As it is; and once more to the one whose reply fails on it."""
    heard = told(["a", "away"], failing="a")

    assert [StoreUnavailable, HandlingFailed] == [type(answer) for answer in heard["a"]]
    assert [StoreUnavailable] == [type(answer) for answer in heard["away"]]
