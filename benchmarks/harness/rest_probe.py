"""Snapshots over REST at a fixed rate, as a process of its own: prints percentiles as JSON.

Usage: rest_probe.py PORT RATE SECONDS, with an admin token on standard input. Every second request
is a POST of a new 4 KB snapshot, every other one a GET of the snapshot before. An open loop: each
request has its due time, and its latency runs from there. One kept-alive connection a worker.
"""

import http.client
import json
import queue
import sys
import threading
import time
import uuid

from syncbridge_core.swarm_histogram import Histogram

WORKERS = 4
STATE_BYTES = 4096
TIMEOUT = 10.0
AGE = 3


class Probe:
    """The two histograms and what went wrong."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self.latency = {"POST": Histogram(), "GET": Histogram()}
        self.wrong = 0
        self.jobs: queue.SimpleQueue[tuple[str, str, float] | None] = queue.SimpleQueue()

    def work(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        while (job := self.jobs.get()) is not None:
            method, session, due = job
            status = self.ask(connection, method, session)
            self.wrong += status not in (200, 201)
            self.latency[method].record(int((time.perf_counter() - due) * 1e9))
        connection.close()

    def ask(self, connection: http.client.HTTPConnection, method: str, session: str) -> int:
        try:
            if method == "POST":
                connection.request(method, "/session/snapshot", body(session), self.headers)
            else:
                connection.request(method, f"/session/{session}", headers=self.headers)
            response = connection.getresponse()
            response.read()
            return response.status
        except (OSError, http.client.HTTPException):
            connection.close()
            return 0


def body(session: str) -> bytes:
    state = {f"key{n}": "x" * 100 for n in range(STATE_BYTES // 112)}
    snapshot = {
        "session_id": session,
        "user_id": f"rest-{session[:8]}",
        "device_id": "probe",
        "app_version": "1.0.0",
        "state_data": state,
    }
    return json.dumps(snapshot).encode()


def schedule(probe: Probe, rate: float, seconds: float) -> None:
    """Hand each job out when it is due; a GET asks for what was posted AGE posts before."""
    begun = time.perf_counter()
    sessions: list[str] = []
    for number in range(int(rate * seconds)):
        due = begun + number / rate
        time.sleep(max(0.0, due - time.perf_counter()))
        if number % 2 == 0:
            sessions.append(str(uuid.uuid4()))
            probe.jobs.put(("POST", sessions[-1], due))
        elif len(sessions) > AGE:
            probe.jobs.put(("GET", sessions[-1 - AGE], due))


def main() -> None:
    port, rate, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    probe = Probe(port, sys.stdin.readline().strip())
    workers = [threading.Thread(target=probe.work) for _ in range(WORKERS)]
    for worker in workers:
        worker.start()
    schedule(probe, rate, seconds)
    for _ in workers:
        probe.jobs.put(None)
    for worker in workers:
        worker.join()
    figures = {
        f"rest_{method.lower()}_{label}_ms": histogram.percentile(percent) / 1e6
        for method, histogram in probe.latency.items()
        for label, percent in (("p50", 50), ("p99", 99))
    }
    print(json.dumps({**figures, "rest_wrong": probe.wrong}))


if __name__ == "__main__":
    main()
