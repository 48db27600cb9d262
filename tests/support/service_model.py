"""What one session must be and answer, by the contract: the reference for whole servers.

Updates of devices are `support.history.model`; here are the calls over HTTP, and who is online.
"""

from dataclasses import dataclass, field
from typing import Any

from support.history import model
from support.history.records import ABSENT, State


@dataclass
class Session:
    """One session.

    Attributes:
        states: the state at each version, from 0 on.
        changed: key -> version that set or deleted it last.
        known: device -> whether it is online. released: the device that handed the session over.
        ids: (device, correlation id) -> the version it was answered with.
    """

    states: list[State] = field(default_factory=lambda: [{}])
    changed: dict[str, int] = field(default_factory=dict)
    known: dict[str, bool] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    ids: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def version(self) -> int:
        return len(self.states) - 1

    @property
    def state(self) -> State:
        return self.states[-1]

    @property
    def online(self) -> set[str]:
        return {device for device, there in self.known.items() if there}

    def get(self, key: str) -> Any:
        return self.state.get(key, ABSENT)

    def changed_at(self, key: str) -> int:
        return self.changed.get(key, 0)

    def commit(self, effect: State) -> None:
        """A write that was accepted; the first one makes the session, whatever it changes."""
        if effect or not self.version:
            merged = self.state | effect
            self.states.append({k: v for k, v in merged.items() if v is not ABSENT})
            self.changed |= dict.fromkeys(effect, self.version)

    def difference(self, target: State) -> State:
        """What turns the state into another one."""
        return {
            key: target.get(key, ABSENT)
            for key in {*self.state, *target}
            if not model.same(target.get(key, ABSENT), self.get(key))
        }

    # A device's STATE_UPDATE

    def update(self, device: str, payload: dict[str, Any], mid: str) -> str:
        """Carry out an update; "" or the code it must be refused with."""
        if (device, mid) in self.ids:
            return ""
        if device in self.released:
            return "fenced"
        if payload.get("base_version", 0) > self.version:
            return "base_version_ahead"
        try:
            self.commit(model.effect(payload, self.get, self.changed_at))
        except model.Refusal as refusal:
            return refusal.code
        self.ids[device, mid] = self.version
        return ""

    # HTTP

    def snapshot(self, state: State, version: int) -> int:
        """POST /session/snapshot: the status."""
        if self.version and version != self.version:
            return 409
        if not self.version and version > 1:
            return 409
        created = not self.version
        self.commit(self.difference(state))
        return 201 if created else 200

    def incremental(
        self, base: int, changes: State, deleted: list[str], strategy: str | None
    ) -> tuple[int, set[str]]:
        """POST /session/incremental: the status, and the keys that were not applied."""
        if not self.version:
            return 404, set()
        if base > self.version:
            return 409, set()
        wanted = {**changes, **dict.fromkeys(deleted, ABSENT)}
        newer = {key for key in wanted if self.changed_at(key) > base}
        if strategy in ("client_wins", "merge"):
            newer = set()
        if newer and strategy is None:
            return 409, newer
        applied = {key: value for key, value in wanted.items() if key not in newer}
        self.commit(
            {key: value for key, value in applied.items() if not model.same(value, self.get(key))}
        )
        return 200, newer

    def resolve(self, base: int, client: State, strategy: str, complete: bool) -> int:
        """POST /session/conflict/resolve from a version that is known: the status."""
        if not self.version:
            return 404
        if strategy == "server_wins":
            return 200
        wanted = self._difference(client, complete)
        if strategy == "merge":
            began = self.states[base]
            wanted = {
                key: value
                for key, value in wanted.items()
                if not model.same(value, began.get(key, ABSENT))
            }
        if wanted:
            self.commit(wanted)
        return 200

    def _difference(self, client: State, complete: bool) -> State:
        differing = self.difference(client)
        return {k: v for k, v in differing.items() if complete or v is not ABSENT}
