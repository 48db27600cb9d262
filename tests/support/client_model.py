"""A server in a few lines, for tests of the client's rules: sessions, ids, differences, conflicts.

The test decides when it reads a message and when it loses one; nothing happens by itself.
"""

import copy
import json
from collections import deque
from typing import Any

from syncbridge_client.conflicts import Policy
from syncbridge_client.dialogue import Dialogue
from syncbridge_client.errors import RequestFailed, UpdateRefused
from syncbridge_client.events import Event
from syncbridge_client.operations import Edit
from syncbridge_client.options import Hello, Options
from syncbridge_client.queue import Pending
from syncbridge_client.replica import Step
from syncbridge_client.values import MISSING

NEVER = "~missing~"


class Recorder:
    """A sink that remembers everything, and a copy of the view made of the steps alone."""

    def __init__(self) -> None:
        self.copy: dict[str, Any] = {}
        self.events: list[Event] = []
        self.finishes: list[tuple[Pending, UpdateRefused | None]] = []
        self.replies: list[tuple[str, RequestFailed | None]] = []
        self.tokens_wanted = 0

    def changed(self, step: Step, own: bool) -> None:
        self.copy.update(step.changed)
        for key in step.deleted:
            del self.copy[key]

    def event(self, event: Event) -> None:
        self.events.append(event)

    def finished(self, pending: Pending, error: UpdateRefused | None) -> None:
        self.finishes.append((pending, error))

    def replied(self, request_id: str, error: RequestFailed | None) -> None:
        self.replies.append((request_id, error))

    def token_wanted(self) -> None:
        self.tokens_wanted += 1


class Server:
    """One session and at most one connection. Messages wait in `inbox` and `outbox`.

    `sequenced`: it takes streams in order; else it ignores them and knows updates by their ids.
    """

    def __init__(self, sequenced: bool = False) -> None:
        self.sequenced = sequenced
        self.streams: dict[str, int] = {}
        self.stream = ""
        self.epochs = 1
        self.lineages: list[str] = [""]
        self.state: dict[str, Any] = {}
        self.version = 0
        self.key_versions: dict[str, int] = {}
        self.ids: dict[str, int] = {}
        self.inbox: deque[bytes] = deque()
        self.outbox: deque[dict[str, Any]] = deque()
        self.joined = False
        self.commits = 0
        self._saved: tuple[int, Any] | None = None
        self.refuse_next = ""
        self.others: dict[str, int] = {}
        self.replaced: dict[str, dict[str, tuple[int, Any]]] = {}

    @property
    def epoch(self) -> str:
        return f"e{self.epochs}"

    @property
    def lineage(self) -> str:
        """Names the history up to the present version."""
        return self.lineages[self.version]

    def disconnect(self) -> None:
        self.inbox.clear()
        self.outbox.clear()
        self.joined = False

    def new_lineage(self) -> None:
        """Redis lost the session; connected devices get the whole state unasked."""
        self.epochs += 1
        self.state, self.version, self.key_versions, self.ids = {}, 0, {}, {}
        self.lineages, self.streams = [""], {}
        self._reset("epoch")

    def save(self) -> None:
        """This is what Redis comes back with, until it has lost the session."""
        kept = self.state, self.version, self.key_versions, self.ids, self.lineages, self.streams
        self._saved = self.epochs, copy.deepcopy(kept)

    @property
    def can_roll_back(self) -> bool:
        """Whether it was saved, and not lost since."""
        return self._saved is not None and self._saved[0] == self.epochs

    def roll_back(self) -> None:
        """Redis returns to the saved state; connected devices get the whole state."""
        assert self._saved is not None
        kept = copy.deepcopy(self._saved[1])
        self.state, self.version, self.key_versions, self.ids, self.lineages, self.streams = kept
        self._reset("rolled_back")

    def _reset(self, reason: str) -> None:
        if self.joined:
            reset = {"reset": True, "reason": reason} if self.sequenced else {}
            self._say(4, self._whole() | reset | self._applied())

    def commit(self, edits: dict[str, Edit], update_id: str = "", device: str = "other") -> int:
        """Carry out a write and tell the device; returns the version."""
        changes, deleted = {}, []
        if update_id:
            self.replaced[update_id] = {k: self._at(k) for k in edits}
        for key, edit in edits.items():
            new = edit.on(self.state.get(key, MISSING))
            if new is MISSING and key in self.state:
                deleted.append(key)
            elif new is not MISSING and self.state.get(key, NEVER) != new:
                changes[key] = new
        previous = self.version
        if changes or deleted:
            self.version += 1
            self.commits += 1
            self.lineages.append(f"l{self.commits}")
            self.state.update(changes)
            for key in deleted:
                del self.state[key]
            self.key_versions.update(dict.fromkeys([*changes, *deleted], self.version))
        if update_id:
            self.ids[update_id] = self.version
        else:
            self.others.update(dict.fromkeys([*changes, *deleted], self.version))
        if self.joined and (self.version != previous or device == "me"):
            self._tell(changes, deleted, previous, update_id, device)
        return self.version

    def _at(self, key: str) -> tuple[int, Any]:
        """The last change of a key by another device: version and value."""
        return self.others.get(key, 0), self.state.get(key, MISSING)

    def conflate(self) -> None:
        """The reader is slow: state changes that wait are replaced by one difference."""
        kept = [m for m in self.outbox if m["type"] != 5]
        if len(kept) == len(self.outbox):
            return
        if any(m["type"] in (4, 8) for m in self.outbox):
            return
        first = next(m["payload"]["prev_version"] for m in self.outbox if m["type"] == 5)
        self.outbox = deque(kept)
        self._tell(*self._since(first), first, "", "")

    def lose_update(self) -> None:
        """The oldest state change that waits is lost."""
        for message in self.outbox:
            if message["type"] == 5 and message["payload"]["prev_version"] < self.version:
                self.outbox.remove(message)
                return

    def repeat_update(self) -> None:
        """A state change that waits comes a second time, unless it is of a history that is lost."""
        updates = [m for m in self.outbox if m["type"] == 5]
        if updates and updates[0]["payload"]["epoch"] == self.epoch:
            self.outbox.extend(m for m in updates[:1] if self._is_ours(m["payload"]))

    def read(self) -> None:
        """Act on the oldest message."""
        message = json.loads(self.inbox.popleft())
        kind, body, mid = message["type"], message["payload"], message.get("correlation_id")
        if kind == 7:
            self.joined = True
            self.stream = body["stream"]
            self._say(8, self._answer(body.get("resume")) | self._applied(), mid)
        elif kind == 3:
            self._say(4, self._answer(body.get("since")), mid)
        elif kind == 5:
            self._update(body, mid)
        elif kind == 1:
            self._say(2, self._place())

    def _applied(self) -> dict[str, Any]:
        return {"applied": self.streams.get(self.stream, 0)} if self.sequenced else {}

    def _update(self, body: dict[str, Any], mid: str) -> None:
        if self.refuse_next:
            code, self.refuse_next = self.refuse_next, ""
            self._refuse(mid, code, True)
            return
        stream, seq = body["stream"], body["seq"]
        last = self.streams.get(stream, 0)
        if self.sequenced and seq > last + 1:
            code = "sequence_gap" if stream in self.streams else "unknown_stream"
            self._refuse(mid, code, True, last=last)
            return
        if seq <= last if self.sequenced else mid in self.ids:
            version = self.ids.get(mid, self.version)
            self._tell({}, [], version, mid, "me", version)
            return
        self._carry_out(body, mid)
        if mid in self.ids:
            self.streams[stream] = seq

    def _carry_out(self, body: dict[str, Any], mid: str) -> None:
        edits = self._edits(body)
        base = body.get("base_version")
        if base is not None:
            if base > self.version:
                self._refuse(mid, "base_version_ahead", False, current_version=self.version)
                return
            lost = [k for k in edits if self.key_versions.get(k, 0) > base]
            if lost:
                self._conflict(mid, lost)
                return
        self.commit(edits, mid, "me")

    def _edits(self, body: dict[str, Any]) -> dict[str, Edit]:
        if "key" in body:
            return {body["key"]: Edit(body["operation"], body.get("value", MISSING))}
        edits = {key: Edit("SET", value) for key, value in body["changes"].items()}
        return edits | {key: Edit("DELETE") for key in body["deleted_keys"]}

    def _conflict(self, mid: str, keys: list[str]) -> None:
        conflicts = [
            {"key": k, "server_value": self.state[k]}
            if k in self.state
            else {"key": k, "deleted": True}
            for k in keys
        ]
        self._refuse(
            mid, "version_conflict", False, current_version=self.version, conflicts=conflicts
        )

    def _refuse(self, mid: str, code: str, retryable: bool, **details: Any) -> None:
        body = {"code": code, "message": code, "retryable": retryable, "details": details}
        self._say(6, body, mid)

    def _since(self, version: int) -> tuple[dict[str, Any], list[str]]:
        keys = [k for k, v in self.key_versions.items() if v > version]
        gone = [k for k in keys if k not in self.state]
        return {k: self.state[k] for k in keys if k in self.state}, gone

    def _answer(self, since: dict[str, Any] | None) -> dict[str, Any]:
        if since is None or not since["epoch"]:
            return self._whole()
        if since["epoch"] != self.epoch or not self._is_ours(since):
            return self._whole() | ({"reset": True, "reason": "resync"} if self.sequenced else {})
        changes, deleted = self._since(since["version"])
        delta = {"resumed": True, "changes": changes, "deleted_keys": deleted}
        return self._place() | delta

    def _is_ours(self, since: dict[str, Any]) -> bool:
        """Whether a client's place is one of this history."""
        version = since["version"]
        return version <= self.version and since.get("lineage", "") == self.lineages[version]

    def _place(self) -> dict[str, Any]:
        return {"version": self.version, "epoch": self.epoch, "lineage": self.lineage}

    def _whole(self) -> dict[str, Any]:
        return self._place() | {"resumed": False, "state_data": dict(self.state)}

    def _tell(
        self,
        changes: dict[str, Any],
        deleted: list[str],
        previous: int,
        mid: str,
        device: str,
        version: int | None = None,
    ) -> None:
        at = self.version if version is None else version
        body = {
            "version": at,
            "prev_version": previous,
            "epoch": self.epoch,
            "lineage": self.lineages[at],
            "prev_lineage": self.lineages[previous],
            "changes": changes,
            "deleted_keys": deleted,
            "device_id": device,
        }
        self._say(5, body, mid or None)

    def _say(self, kind: int, body: dict[str, Any], mid: str | None = None) -> None:
        message = {"type": kind, "payload": body, "correlation_id": mid, "timestamp": 1}
        self.outbox.append(message)


class Client:
    """A dialogue on a connection to a `Server`; time moves only when it is told to."""

    def __init__(
        self, conflict: Policy | None = None, *, sequenced: bool = False, **options: Any
    ) -> None:
        self.now = 0.0
        self._ids = 0
        self.sink = Recorder()
        self.server = Server(sequenced)
        self.dialogue = Dialogue(
            Hello("me"), Options(conflict=conflict, **options), self.sink, self._new_id
        )
        self.connected = False

    def _new_id(self) -> str:
        self._ids += 1
        return f"id{self._ids}"

    @property
    def replica(self) -> Any:
        return self.dialogue.replica

    def connect(self) -> None:
        self.connected = True
        self.server.inbox.append(self.dialogue.opening("token"))

    def lose(self) -> None:
        self.connected = False
        self.server.disconnect()
        self.dialogue.lost()

    def send(self) -> bool:
        """Send what may go now; whether there was anything. A hopeless connection is given up."""
        if self.dialogue.ready and self.dialogue.astray(self.now):
            self.lose()
            return True
        message = self.dialogue.outgoing(self.now)
        if message is not None:
            self.server.inbox.append(message)
        return message is not None

    def deliver(self) -> None:
        message = self.server.outbox.popleft()
        self.dialogue.receive(json.dumps(message).encode(), self.now)

    def settle(self) -> None:
        """Deliver everything until nothing moves."""
        for _ in range(10_000):
            if not self._step():
                if not len(self.replica.queue) and self.dialogue.wait(self.now) > 1e6:
                    return
                self.now += 1.0
        raise AssertionError("it never settles")

    def settle_what_is_safe(self, seconds: int = 40) -> None:
        """The same for a queue in a file, which may have to be written before more can go."""
        for _ in range(seconds):
            while self._step():
                pass
            self.now += 1.0

    def _step(self) -> bool:
        """One message moves on, if there is one."""
        if not self.connected:
            self.connect()
        elif self.server.inbox:
            self.server.read()
        elif self.server.outbox:
            self.deliver()
        else:
            return self.send()
        return True
