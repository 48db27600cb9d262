"""Handoffs and conflicts over REST at a fixed rate, as a process of its own: percentiles as JSON.

Usage: python -m harness.session_probe PORT RATE, with one JSON object on standard input:
`{"token": ..., "handoffs": [[session, source, target], ...], "conflicts": [[session, user], ...]}`.

An open loop: every second job is a handoff, every other one a conflict, each has its due time, and
its latency runs from there. A handoff is two requests, POST for the token and GET by the target,
and is over when the target has the state.

A conflict is a whole state of 200 keys, sent with strategy `merge` by two clients of a session in
turn, A and B. Each knows the session as its own last request left it, and the other one has written
since: three keys of its own and one that both write. So every merge has three keys that only the
client changed, three that only the server changed, and one true conflict, and is checked for it.
"""

import http.client
import json
import queue
import sys
import threading
import time
from typing import Any

from _data import dump, state
from harness.rest_client import Rest
from syncbridge_core.swarm_histogram import Histogram

WORKERS = 4
FIXED_KEYS = 193
BOTH = "both"
OWN = {0: ("even.one", "even.two", "even.three"), 1: ("odd.one", "odd.two", "odd.three")}
FIXED = dump(state(FIXED_KEYS))[:-1]


def state_of(evens: int, odds: int, both: int) -> bytes:
    """A whole state; the numbers say which request wrote the keys that change."""
    changing = {key: text_of(evens) for key in OWN[0]} | {key: text_of(odds) for key in OWN[1]}
    return FIXED + b"," + dump({**changing, BOTH: text_of(both)})[1:]


def text_of(number: int) -> str:
    return f"written by request number {number:06}"


class Contested:
    """A session that two clients write to. Its requests go one after the other."""

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.lock = threading.Lock()
        self.number = 0
        self.versions = [1, 1]

    def body(self) -> bytes:
        """The next request; the client knows what was there two requests ago."""
        self.number += 1
        mine, others = self.number, max(self.number - 3, 0)
        evens, odds = (mine, others) if mine % 2 == 0 else (others, mine)
        head = {
            "session_id": self.session_id,
            "client_version": self.versions[mine % 2],
            "resolution_strategy": "merge",
        }
        return dump(head)[:-1] + b',"client_state":' + state_of(evens, odds, mine) + b"}"

    def accept(self, answer: dict[str, Any]) -> bool:
        """Whether the merge came out as it must."""
        self.versions[self.number % 2] = answer["version"]
        lost = [one["key"] for one in answer["conflicts"]]
        merged = answer["state_data"]
        others = text_of(self.number - 1)
        return (
            lost == ([BOTH] if self.number > 1 else [])
            and merged[OWN[self.number % 2][0]] == text_of(self.number)
            and merged[OWN[1 - self.number % 2][0]] == others
        )


class Probe:
    """The two histograms and what went wrong."""

    def __init__(self, port: int, token: str) -> None:
        self.port, self.token = port, token
        self.latency = {"handoff": Histogram(), "conflict": Histogram()}
        self.wrong: list[str] = []
        self.jobs: queue.SimpleQueue[tuple[float, list[str] | Contested] | None]
        self.jobs = queue.SimpleQueue()

    def work(self) -> None:
        with Rest(self.port, self.token) as rest:
            while (job := self.jobs.get()) is not None:
                due, what = job
                try:
                    self.carry_out(rest, due, what)
                except (OSError, http.client.HTTPException, KeyError, TypeError) as error:
                    self.wrong.append(repr(error))

    def carry_out(self, rest: Rest, due: float, what: list[str] | Contested) -> None:
        if isinstance(what, Contested):
            with what.lock:
                status, answer = rest.ask("POST", "/session/conflict/resolve", what.body())
                self.record("conflict", due)
                self.check(status == 200 and what.accept(answer), f"conflict: {status}")
        else:
            status, answer = hand_over(rest, *what)
            self.record("handoff", due)
            self.check(status == 200 and answer["valid"], f"handoff: {status}")

    def record(self, name: str, due: float) -> None:
        self.latency[name].record(int((time.perf_counter() - due) * 1e9))

    def check(self, right: bool, text: str) -> None:
        if not right:
            self.wrong.append(text)


def hand_over(rest: Rest, session_id: str, source: str, target: str) -> tuple[int, Any]:
    path = f"/session/{session_id}/handoff"
    wanted = {"source_device": source, "target_device": target}
    status, created = rest.ask("POST", path, dump(wanted))
    if status != 201:
        return status, created
    return rest.ask("GET", f"{path}/{created['token']}", headers={"X-Device-ID": target})


def schedule(probe: Probe, rate: float, handoffs: list[list[str]], ids: list[str]) -> None:
    """Hand each job out when it is due."""
    contested = [Contested(one) for one in ids]
    begun = time.perf_counter()
    for number in range(2 * len(handoffs)):
        due = begun + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        half = number // 2
        probe.jobs.put((due, handoffs[half] if number % 2 else contested[half % len(contested)]))


def main() -> None:
    port, rate = int(sys.argv[1]), float(sys.argv[2])
    asked = json.load(sys.stdin)
    probe = Probe(port, asked["token"])
    workers = [threading.Thread(target=probe.work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    schedule(probe, rate, asked["handoffs"], asked["conflicts"])
    for _ in workers:
        probe.jobs.put(None)
    for worker in workers:
        worker.join()
    figures = {
        f"{name}_p{percent}_ms": histogram.percentile(percent) / 1e6
        for name, histogram in probe.latency.items()
        for percent in (50, 99)
    }
    print(json.dumps({"figures": figures, "wrong": probe.wrong}))


if __name__ == "__main__":
    main()
