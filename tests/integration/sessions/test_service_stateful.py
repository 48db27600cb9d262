"""Random histories through whole servers: two nodes, sockets and HTTP, held to a model.

After every step each connected device must have the model's state and version, having been sent
every version once and in order, and must know exactly who else is online; HTTP must say the same.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.service_model import Session
from support.sessions.member import AUTH, ERROR, SNAPSHOT_REQUEST, STATE_UPDATE, Member
from support.trio_portal import Portal
from support.ws_client import Closed

DEVICES = st.sampled_from(["phone", "tablet", "laptop"])
NODES = st.sampled_from([0, 1])
KEYS = st.sampled_from(["a", "b", "c"])
VALUES = st.sampled_from([1, 2, "x", None, [1], {"n": 1}])
STATES = st.dictionaries(KEYS, VALUES, max_size=3)
STRATEGIES = st.sampled_from(["server_wins", "client_wins", "merge"])
KINDS = ["SET", "SET", "DELETE", "SEVERAL", "INCR", "APPEND", "MAX", "SETNX", "CAS", "MERGE"]
BACK = st.integers(-2, 4)
"""How far before the present version a base lies; negative: ahead of it."""


@st.composite
def payloads(draw: Any) -> dict[str, Any]:
    """STATE_UPDATE of every kind; sums, lists and patched objects have keys of their own."""
    key, value = draw(KEYS), draw(VALUES)
    kind = draw(st.sampled_from(KINDS))
    match kind:
        case "SEVERAL":
            changes = draw(STATES)
            deleted = draw(st.lists(KEYS.filter(lambda k: k not in changes), unique=True))
            return {"changes": changes, "deleted_keys": deleted}
        case "INCR" | "MAX":
            return {"key": f"n{key}", "value": draw(st.integers(-5, 5)), "operation": kind}
        case "APPEND":
            return {"key": f"l{key}", "value": value, "operation": kind}
        case "MERGE":
            return {"key": f"o{key}", "value": {"x": value, key: 1}, "operation": kind}
        case "CAS":
            expected = draw(st.sampled_from([{}, {"expected": draw(VALUES)}]))
            return {"key": key, "value": value, "operation": kind, **expected}
        case "DELETE":
            return {"key": key, "operation": kind}
    return {"key": key, "value": value, "operation": kind}


GUARDED = st.tuples(payloads(), st.none() | BACK)


@dataclass
class Deployment:
    """Two nodes, and an HTTP client of each."""

    nodes: list[Node]
    http: list[httpx.AsyncClient]


@asynccontextmanager
async def service(redis_url: str) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        nodes = [await enter(running_node(redis_url, rate_limit_enabled=False)) for _ in "ab"]
        yield Deployment(nodes, [await enter(node.http()) for node in nodes])


class Service(RuleBasedStateMachine):
    """One session; `members` are its open connections, `gone` where those that left had got to."""

    def __init__(self, portal: Portal[Deployment]) -> None:
        super().__init__()
        self.portal = portal
        self.model = Session()
        self.session = new_session()
        self.members: dict[str, Member] = {}
        self.gone: dict[str, Member] = {}
        self.last: dict[str, tuple[dict[str, Any], str]] = {}
        self.ids = 0

    def run(self, function: Any, *args: Any) -> Any:
        return self.portal.run(function, *args)

    def http(self, node: int, method: str, path: str, body: Any = None, **headers: str) -> Any:
        every = bearer(mint("ann")) | headers
        call = partial(self.portal.value.http[node].request, json=body, headers=every)
        return self.run(call, method, path)

    def base(self, back: int) -> int:
        return max(0, self.model.version - back)

    # Devices come and go

    @initialize(device=DEVICES, node=NODES, state=st.none() | STATES)
    def begin(self, device: str, node: int, state: dict[str, Any] | None) -> None:
        if state is not None:
            self.put_snapshot(state, 0, node)
        self._join(device, node, None)

    @rule(device=DEVICES, node=NODES, resume=st.booleans())
    def join(self, device: str, node: int, resume: bool) -> None:
        """Also a device that is connected: its old socket is closed with 4009."""
        old = self.members.get(device)
        self._join(device, node, old or self.gone.get(device) if resume else None)
        if old is not None:
            assert 4009 == self.run(old.device.closed).code

    def _join(self, device: str, node: int, known: Member | None) -> None:
        self.members[device] = self.run(
            Member.join, self.portal.value.nodes, node, self.session, device, known
        )
        self.model.known[device] = True
        self.model.released.discard(device)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), politely=st.booleans())
    def leave(self, data: st.DataObject, politely: bool) -> None:
        member = self._some(data)
        self.run(member.device.close if politely else member.device.kill)
        self._lose(member)
        self.model.known[member.name] = False

    @precondition(lambda self: self.members)
    @rule(data=st.data(), node=NODES)
    def sign_out(self, data: st.DataObject, node: int) -> None:
        member = self._some(data)
        answer = self.http(node, "DELETE", f"/session/{self.session}/device/{member.name}")
        assert 204 == answer.status_code
        assert 4010 == self.run(member.device.closed).code
        self._lose(member)
        del self.model.known[member.name]

    @precondition(lambda self: not self.model.released.isdisjoint(self.members))
    @rule(data=st.data())
    def take_part_again(self, data: st.DataObject) -> None:
        """AUTH on the open socket of a device that had handed the session over."""
        name = data.draw(st.sampled_from(sorted(self.model.released & {*self.members})))
        body = {"token": mint("ann"), "device_id": name, "session_id": self.session}
        assert 8 == self.run(self.members[name].ask, AUTH, body)["type"]
        self.model.released.discard(name)
        self.model.known[name] = True

    @precondition(lambda self: self.model.version and self.members)
    @rule(data=st.data(), heir=DEVICES, node=NODES)
    def hand_over(self, data: st.DataObject, heir: str, node: int) -> None:
        source = self._some(data).name
        path = f"/session/{self.session}/handoff"
        pair = {"source_device": source, "target_device": heir}
        answer = self.http(node, "POST", path, pair)
        if source == heir:
            assert 422 == answer.status_code
            return
        path = f"{path}/{answer.json()['token']}"
        headers = [{"x-device-id": name} for name in (source, heir, heir)]
        answers = [self.http(1 - node, "GET", path, **each) for each in headers]
        assert [403, 200, 200] == [a.status_code for a in answers]
        assert answers[1].json() == answers[2].json()
        self._same(answers[1].json())
        self.model.released.add(source)
        self.model.known[source] = False

    def _some(self, data: st.DataObject) -> Member:
        return self.members[data.draw(st.sampled_from(sorted(self.members)))]

    def _lose(self, member: Member) -> None:
        self.gone[member.name] = self.members.pop(member.name)

    # Writes

    @precondition(lambda self: self.members)
    @rule(data=st.data(), writes=st.lists(GUARDED, min_size=1, max_size=6))
    def update(self, data: st.DataObject, writes: list[tuple[dict[str, Any], int | None]]) -> None:
        """Some updates, each of any device."""
        for payload, guard in writes:
            self.ids += 1
            commuting = payload.get("operation") in ("INCR", "APPEND", "MAX")
            if guard is not None and not commuting:
                payload = {**payload, "base_version": self.base(guard)}
            self._send(self._some(data).name, payload, f"m{self.ids}")

    @precondition(lambda self: not {*self.last}.isdisjoint(self.members))
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """The same id, from the same device, on whatever connection it has now."""
        name = data.draw(st.sampled_from(sorted({*self.last} & {*self.members})))
        self._send(name, *self.last[name])

    def _send(self, name: str, payload: dict[str, Any], mid: str) -> None:
        done = self.model.ids.get((name, mid))
        code = self.model.update(name, payload, mid)
        answer = self.run(self.members[name].ask, STATE_UPDATE, payload, mid)
        self.last[name] = payload, mid
        if code:
            assert (ERROR, code) == (answer["type"], answer["payload"]["code"])
            return
        assert STATE_UPDATE == answer["type"], answer["payload"]
        expected = self.model.version if done is None else done
        assert expected == answer["payload"]["version"]

    @rule(state=STATES, back=st.sampled_from([0, 0, 0, 1, -1]), node=NODES)
    def put_snapshot(self, state: dict[str, Any], back: int, node: int) -> None:
        version = self.base(back)
        body = {"session_id": self.session, "user_id": "ann", "state_data": state}
        answer = self.http(node, "POST", "/session/snapshot", body | {"version": version})
        assert self.model.snapshot(state, version) == answer.status_code
        if answer.is_success:
            assert self.model.version == answer.json()["version"]

    @rule(changes=STATES, deleted=KEYS, back=BACK, strategy=st.none() | STRATEGIES, node=NODES)
    def incremental(
        self, changes: dict[str, Any], deleted: str, back: int, strategy: str | None, node: int
    ) -> None:
        gone = [] if deleted in changes else [deleted]
        base = self.base(back)
        body = {
            "session_id": self.session,
            "base_version": base,
            "changes": changes,
            "deleted_keys": gone,
        }
        body |= {"resolution_strategy": strategy} if strategy else {}
        answer = self.http(node, "POST", "/session/incremental", body)
        status, lost = self.model.incremental(base, changes, gone, strategy)
        assert status == answer.status_code, answer.text
        if status == 200:
            written = answer.json()
            assert lost == {conflict["key"] for conflict in written["conflicts"]}
            assert {*changes, *gone} - lost == set(written["applied"])
            assert self.model.version == written["version"]

    @precondition(lambda self: self.model.version)
    @rule(
        state=STATES,
        back=st.integers(0, 4),
        strategy=STRATEGIES,
        complete=st.booleans(),
        node=NODES,
    )
    def resolve(
        self, state: dict[str, Any], back: int, strategy: str, complete: bool, node: int
    ) -> None:
        base = max(1, self.base(back))
        body = {
            "session_id": self.session,
            "client_version": base,
            "client_state": state,
            "resolution_strategy": strategy,
            "complete": complete,
        }
        answer = self.http(node, "POST", "/session/conflict/resolve", body)
        assert self.model.resolve(base, state, strategy, complete) == answer.status_code, (
            answer.text
        )
        self._same(answer.json())

    # What must be so

    def _same(self, body: dict[str, Any]) -> None:
        assert (self.model.version, self.model.state) == (body["version"], body["state_data"])

    @precondition(lambda self: self.members)
    @rule(data=st.data(), back=st.none() | st.integers(0, 4))
    def ask_for_a_snapshot(self, data: st.DataObject, back: int | None) -> None:
        """Whole, or the difference from a version: what it leads to is the state."""
        member = self._some(data)
        since = self.base(back or 0)
        payload = {} if back is None else {"since": {"epoch": member.epoch, "version": since}}
        answer = self.run(member.ask, SNAPSHOT_REQUEST, payload)["payload"]
        assert self.model.version == answer["version"]
        if not answer["resumed"]:
            assert self.model.state == answer["state_data"]
            return
        state = self.model.states[since] | answer["changes"]
        assert self.model.state == {
            k: v for k, v in state.items() if k not in answer["deleted_keys"]
        }

    @invariant()
    def every_device_has_the_state(self) -> None:
        self.run(self._settle)

    async def _settle(self) -> None:
        with trio.move_on_after(5):
            while True:
                if all([await self._settled(member) for member in self.members.values()]):
                    return
                await trio.sleep(0.002)
        told = {m.name: (m.version, m.copy, m.others) for m in self.members.values()}
        raise AssertionError(f"{told}, not {self.model}")

    async def _settled(self, member: Member) -> bool:
        try:
            await member.refresh()
        except Closed as closed:
            raise AssertionError(f"{member.name} was closed: {closed}") from None
        return (member.version, member.copy, member.others) == (
            self.model.version,
            self.model.state,
            self.model.online - {member.name},
        )

    @invariant()
    def http_says_the_same(self) -> None:
        answer = self.http(0, "GET", f"/session/{self.session}")
        if not self.model.version:
            assert 404 == answer.status_code
            return
        assert 200 == answer.status_code, answer.text
        self._same(answer.json())
        listed = self.http(1, "GET", f"/session/{self.session}/devices").json()["devices"]
        assert self.model.known == {d["device_id"]: d["status"] == "online" for d in listed}

    def teardown(self) -> None:
        for member in self.members.values():
            self.run(member.device.kill)


def test_service_does_what_the_model_does(redis_url: str) -> None:
    """Any history of joins, writes, resolutions, handoffs and reconnects on two nodes."""
    with Portal(lambda: service(redis_url)) as portal:
        run_state_machine_as_test(
            lambda: Service(portal),  # type: ignore[arg-type]
            settings=settings(
                deadline=None,
                max_examples=40,
                stateful_step_count=30,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )
