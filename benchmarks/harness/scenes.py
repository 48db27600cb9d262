"""The scenes: measurements that start the servers they need by themselves, as `--only` names them.

A scene takes its turn in every round, after the servers that get the common load (load.py).
"""

from collections.abc import Callable
from typing import NamedTuple

from harness import differences, durable, resumption, session_requests, wire
from harness.load import Numbers, Size
from harness.servers import Workplace


class Scene(NamedTuple):
    """`measure` returns numbers by server, those of one round."""

    name: str
    measure: Callable[[Workplace, Size], dict[str, Numbers]]


SCENES = (
    Scene("handoff and conflicts", session_requests.measure),
    Scene("durable updates", durable.measure),
    Scene("bytes on the wire", wire.measure),
    Scene("differences", differences.measure),
    Scene("resumption", resumption.measure),
)
