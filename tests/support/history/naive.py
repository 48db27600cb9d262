"""A control: devices that read the state, change it, and write it back, without the service.

They number their writes as the service does. The checker must find out what they lose.
"""

import json
import random
import threading
import time
from collections.abc import Callable
from typing import Any

from support.history import model
from support.history.records import ABSENT, Answer, Call, History, State

KEY = "naive"
Opener = Callable[[], Any]
"""Makes a client of redis-py, for a single server or a cluster."""


def race(open_client: Opener, devices: int, operations: int, seed: int) -> History:
    """Threads that write to one key at the same time; their first writes certainly overlap."""
    history, start = History(), threading.Barrier(devices)
    with open_client() as client:
        client.set(KEY, json.dumps({"version": 0, "state": {}}))
    threads = [
        threading.Thread(
            target=_write, args=(open_client, f"d{n}", operations, seed + n, start, history)
        )
        for n in range(devices)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with open_client() as client:
        final = json.loads(client.get(KEY) or b"")
    history.final, history.final_version = final["state"], final["version"]
    return history


def _write(
    open_client: Opener,
    device: str,
    operations: int,
    seed: int,
    start: threading.Barrier,
    history: History,
) -> None:
    dice = random.Random(seed)
    with open_client() as client:
        for number in range(operations):
            value = f"{device}.{number}"
            call = Call((device, value), _payload(dice, value, number), time.monotonic_ns())
            before = json.loads(client.get(KEY) or b"")
            if not number:
                start.wait()
            call.answers.append(_store(client, before, call))
            call.returned = time.monotonic_ns()
            history.calls.append(call)


def _payload(dice: random.Random, value: str, number: int) -> dict[str, Any]:
    if number % 2 == 0:
        return {"key": "list", "operation": "APPEND", "value": value}
    return {"key": f"hot{dice.randrange(4)}", "value": value}


def _store(client: Any, before: dict[str, Any], call: Call) -> Answer:
    state: State = before["state"]
    version = before["version"] + 1
    changes = model.effect(call.payload, lambda key: state.get(key, ABSENT), lambda _: 0)
    client.set(KEY, json.dumps({"version": version, "state": state | changes}))
    return Answer(version, changes)
