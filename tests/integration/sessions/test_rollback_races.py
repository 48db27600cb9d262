"""Redis comes back older while something is under way: a message between nodes, a packed command,
an acknowledgement, a state that is being packed, numbered updates, a handoff, a dead node.

The numbers at the tests are those of the list that the design of lineages was held against. Where a
rule is needed, a control takes it away and finds the fault.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import trio

from support.contract.requests import join as hello
from support.contract.requests import pairs, read, session_id, write
from support.redis_servers import RedisServer, until
from support.rollback.kit import PATIENCE, Restart, Room, Way, stored, way_back
from support.server_kit import Node, bearer, mint, new_session, running_node, server_process
from support.ws_client import Device
from syncbridge.records.sessions import Commit, Place
from syncbridge.session import OfferResult, Session
from syncbridge_server.gateway.fanout import Fanout
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.stores.freezer import Freezer, Packed
from syncbridge_server.redis.stores.store import RedisStore

STATE_UPDATE, ERROR, JOINED, LEFT = 5, 6, 10, 11
VALUES: dict[str, Any] = {"rate_limit_enabled": False, "presence_timeout": 600.0}


@pytest.fixture
def rdb() -> Iterator[Way]:
    """A restart from the last RDB file."""
    with way_back("rdb") as made:
        yield made


@pytest.fixture
def backup() -> Iterator[Way]:
    """A backup that is put back into the running server."""
    with way_back("backup") as made:
        yield made


async def compared(*nodes: Node) -> None:
    """All sessions were compared, and Redis is ready."""
    for node in nodes:
        await until(lambda node=node: not node.server.store_reason, PATIENCE)
        await until(lambda node=node: not node.server.gateway.presence.verifying, PATIENCE)
        await until(lambda node=node: not node.server.gateway.fanout.reads, PATIENCE)


@pytest.mark.parametrize("again", [True, False], ids=["compared again", "control"])
async def test_a_lost_commit_that_comes_after_the_comparison(
    rdb: Way, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """11, 25: the old bus connection still has the lost v6, which fits on v5. Nobody ends there,
    because all is compared again once the bus is subscribed anew; without that somebody does."""
    async with (
        running_node(rdb.url, **VALUES) as one,
        running_node(rdb.url, **VALUES) as two,
        Room() as room,
    ):
        phone, tablet = await room.join(one, "phone"), await room.join(two, "tablet")
        for version in range(1, 6):
            await phone.write(n=version)
            await tablet.reaches(version)
        rdb.mark()
        late: list[Sequence[Commit]] = []
        gateway = two.server.gateway
        monkeypatch.setattr(gateway.fanout, "receive", late.append)
        await phone.write(n=6)
        await until(lambda: bool(late))
        rdb.go_back()
        await phone.reset()
        await until(lambda: two.server.bus.connected, PATIENCE)
        await compared(one, two)
        monkeypatch.undo()
        for commits in late:
            gateway._on_commits(commits)
        await tablet.reaches(6)
        if again:
            gateway.doubt()
            await tablet.reset()
        await compared(two)
        state, place = await stored(one, room.session)
        ended = (tablet.state, tablet.place)

    assert 5 == place[0]
    assert again == ((state, place) == ended)


@pytest.mark.parametrize("held", [True, False], ids=["held", "control"])
async def test_a_lost_commit_that_comes_while_the_difference_is_read(
    rdb: Way, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """2, 25: a node at v5 reads what others have written since Redis came back, a new v6. The lost
    v6 comes meanwhile, and fits too. What comes during a read waits; without that, the lost v6 is
    taken, and the read, which says that there is a v6, changes nothing."""
    async with (
        running_node(rdb.url, **VALUES) as one,
        running_node(rdb.url, **VALUES) as two,
        Room() as room,
    ):
        phone, tablet = await room.join(one, "phone"), await room.join(two, "tablet")
        for version in range(1, 6):
            await phone.write(n=version)
            await tablet.reaches(version)
        rdb.mark()
        gateway, messages, answers = two.server.gateway, list[Any](), list[Any]()
        fanout = gateway.fanout
        with monkeypatch.context() as patch:
            patch.setattr(fanout, "receive", messages.append)
            await phone.write(lost=6)
            await until(lambda: bool(messages))
            lost = messages.copy()
            rdb.go_back()
            await phone.reset()
            await compared(one, two)
            await phone.write(new=6)
            await until(lambda: len(messages) > len(lost))
            patch.setattr(fanout, "_mended", lambda *answer: answers.append(answer))
            gateway.doubt()
            await until(lambda: bool(answers), PATIENCE)
        if not held:
            let_through(monkeypatch)
        for commits in lost:
            gateway._on_commits(commits)
        for answer in answers:
            fanout._mended(*answer)
        await tablet.reaches(6)
        await until(lambda: not fanout.reads, PATIENCE)
        true, ended = await stored(one, room.session), (tablet.state, tablet.place)

    assert ({"n": 5, "new": 6}, 6) == (true[0], true[1][0])
    assert held == (true == ended), ended


def let_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits are taken while a read is under way."""
    original = Session.offer

    def offer(self: Session[Any], change: Any, out: list[Any]) -> OfferResult:
        reading, self.reading = self.reading, False
        try:
            return original(self, change, out)
        finally:
            self.reading = reading

    monkeypatch.setattr(Session, "offer", offer)


async def test_control_versions_by_number(rdb: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """25: where a version that is not newer counts as seen, nobody is told, for as long as one
    looks; so the tests of rollbacks see what they are for."""

    def compare(self: Fanout, session: Any, place: Place) -> None:
        if place.version > session.version:
            self.mend(session)

    monkeypatch.setattr(Fanout, "compare", compare)
    monkeypatch.setattr(Fanout, "_check", lambda *_: None)
    async with running_node(rdb.url, **VALUES) as node, Room() as room:
        phone = await room.join(node, "phone")
        for version in range(1, 11):
            await phone.write(n=version)
            if version == 5:
                rdb.mark()
        epoch = node.server.gateway.registry.sessions[room.session].epoch
        rdb.go_back()
        await until(lambda: not node.server.bus.connected, PATIENCE)
        await until(lambda: node.server.bus.connected, PATIENCE)
        await compared(node)
        _, place = await stored(node, room.session)
        here = node.server.gateway.registry.sessions[room.session].version

    assert (10, (5, epoch)) == (here, place[:2])


async def test_a_command_that_is_carried_out_in_two_histories(rdb: Way) -> None:
    """12: the same packed write makes v7 before and after; the first v7 is not taken for the
    second, though both were made with one nonce."""
    sid = session_id()
    async with RedisIO(rdb.url).running() as io:
        store = RedisStore(io, "n1")
        for version in range(1, 6):
            await store.call(write(sid, {"n": str(version)}))
        rdb.mark()
        await store.call(write(sid, {"n": "6"}))
        store._settings.nonce = lambda: b"the same"
        first = await store.call(write(sid, {"twice": "1"}))
        rdb.go_back()
        await until(lambda: io.server is not None, PATIENCE)
        store._settings.nonce = lambda: b"  other "
        with trio.fail_after(PATIENCE):
            await store.call(write(sid, {"m": "6"}))
        store._settings.nonce = lambda: b"the same"
        second = await store.call(write(sid, {"twice": "1"}))
        since = Place(first.epoch, first.version, first.lineage)
        welcome = await store.call(hello(sid, since=since))

    assert (7, 7, first.epoch) == (first.version, second.version, second.epoch)
    assert first.lineage != second.lineage
    assert ("rolled_back", {b"n": b"5", b"m": b"6", b"twice": b"1"}) == (
        welcome.reason,
        pairs(welcome.full),
    )


async def test_an_update_whose_content_never_came_by(
    rdb: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """13: v6 of another node is late, v7 is stored and lost again: the node goes from v5 to v6
    without a step back, and the maker of v7 is told all the same, by its number."""
    async with (
        running_node(rdb.url, **VALUES) as one,
        running_node(rdb.url, **VALUES) as two,
        Room() as room,
    ):
        phone, tablet = await room.join(one, "phone"), await room.join(two, "tablet")
        for version in range(1, 5):
            await phone.write(n=version)
            await tablet.reaches(version)
        await tablet.write(n=5)
        fanout = two.server.gateway.fanout
        with monkeypatch.context() as patch:
            patch.setattr(fanout, "receive", lambda commits: None)
            patch.setattr(fanout, "mend_holes", lambda: None)
            await phone.write(n=6)
            rdb.mark()
            numbered = {"stream": tablet.stream, "seq": 2, "changes": {"lost": 7}}
            await tablet.device.send(STATE_UPDATE, numbered, "tablet-2")
            local = two.server.gateway.registry.sessions[room.session]
            stream = local.devices["tablet"].stream
            assert stream is not None
            await until(lambda: stream.acked == 2)
            rdb.go_back()
        told = await tablet.reset()
        state, place = await stored(one, room.session)

    assert (6, {"n": 6}) == (place[0], state)
    assert (1, ["tablet-2"]) == (told["applied"], told["lost"])
    assert (state, place) == (tablet.state, tablet.place)


async def test_a_state_of_the_lost_history_is_not_packed(backup: Way) -> None:
    """15: the freezer has read the lost v10; others have made another v10 since. Their state stays
    what it is."""
    sid = session_id()
    async with RedisIO(backup.url).running() as io:
        store, freezer = RedisStore(io, "n1"), Freezer(io, "n1", after=0.0, least=0)
        for version in range(1, 6):
            await store.call(write(sid, {"n": str(version)}))
        backup.mark()
        for version in range(6, 11):
            await store.call(write(sid, {"lost": str(version)}))
        seen = (await io.request([freezer._look(sid)]))[0]
        backup.go_back()
        for version in range(6, 11):
            done = await store.call(write(sid, {"true": str(version)}))
        packed = await freezer._swap([(sid, Packed(*seen[1:]))])
        found = await store.call(read(sid))

    assert (10, b"10") == (done.version, seen[1])
    assert [0] == packed
    assert {b"n": b"5", b"true": b"10"} == pairs(found.flat)


class Queue:
    """What a client keeps: updates to be made in order, each once, and how far it is with them."""

    def __init__(self, session: str, names: Sequence[str]) -> None:
        self.session = session
        self.left = list(names)
        self.acked = 0
        self.sent: dict[str, int] = {}

    async def connect(self, port: int, device: str = "phone") -> Device:
        """AUTH; what the store has is taken off the queue."""
        one = await Device.open(port)
        marks = {"stream": "q", "acked": self.acked}
        welcome = await one.auth(mint("ann"), device, session_id=self.session, **marks)
        self.left = [n for n in self.left if self.sent.get(n, 1 << 30) > welcome["applied"]]
        self.acked = welcome["applied"]
        return one

    async def send(self, device: Device, name: str, seq: int, **payload: Any) -> None:
        self.sent[name] = seq
        body = {"key": "log", "value": name, "operation": "APPEND"} | payload
        await device.send(STATE_UPDATE, body | {"stream": "q", "seq": seq}, f"{name}-{seq}")

    async def send_all(self, device: Device) -> None:
        """Everything that is left, numbered anew, without waiting."""
        for seq, name in enumerate(self.left, self.acked + 1):
            await self.send(device, name, seq)

    def took(self, message: dict[str, Any]) -> None:
        """An acknowledgement takes its update off the queue."""
        name, _, seq = (message["correlation_id"] or "").partition("-")
        if message["type"] == STATE_UPDATE and name in self.left and int(seq) == self.acked + 1:
            self.left.remove(name)
            self.acked += 1


STEPS = range(6)
"""How many answers come before the node is killed; at 3 what is left is sent under new numbers."""


@pytest.mark.parametrize("step", STEPS)
async def test_numbers_after_a_refused_one_and_a_dead_node(
    redis_url: str, tmp_path: Path, step: int
) -> None:
    """17: number 5 is refused while 6 and 7 are in flight, and the node is killed at each step:
    each is done once, in order."""
    queue = Queue(new_session(), ["w1", "w2", "w3", "w4"])
    with (
        server_process(tmp_path, redis_url) as doomed,
        server_process(tmp_path, redis_url) as other,
    ):
        phone = await queue.connect(doomed.port)
        await queue.send_all(phone)
        while queue.left:
            queue.took(await phone.receive())
        queue.left = ["w6", "w7"]
        refused = {"operation": "CAS", "expected": "what is not there"}
        await queue.send(phone, "w5", 5, **refused)
        await queue.send(phone, "w6", 6)
        await queue.send(phone, "w7", 7)
        answers = []
        for at in range(step):
            answers.append(await phone.receive())
            queue.took(answers[-1])
            if at == 2:
                await queue.send_all(phone)
        doomed.kill()
        await phone.kill()
        again = await queue.connect(other.port)
        await queue.send_all(again)
        while queue.left:
            queue.took(await again.receive())
        log = (await again.request(3))["payload"]["state_data"]["log"]
        await again.kill()

    codes = [answer["payload"].get("code") for answer in answers[:3]]
    assert ["precondition_failed", "sequence_gap", "sequence_gap"][:step] == codes
    assert ["w1", "w2", "w3", "w4", "w6", "w7"] == log


@pytest.mark.parametrize("turn", range(5))
async def test_handoff_with_writes_in_flight(redis_url: str, turn: int) -> None:
    """18: each of three numbered writes is either done once or refused with `fenced`, which uses
    no number: after AUTH the source goes on with the next."""
    names = ["a", "b", "c"]
    async with running_node(redis_url, rate_limit_enabled=False) as node, node.http() as http:
        queue = Queue(new_session(), names)
        source = await queue.connect(node.port)
        await source.set("here", turn)
        path, headers = f"/session/{queue.session}/handoff", bearer(mint("ann"))
        body = {"source_device": "phone", "target_device": "tablet"}
        token = (await http.post(path, json=body, headers=headers)).json()["token"]
        statuses: list[int] = []

        async def redeem() -> None:
            statuses.append((await http.get(f"{path}/{token}", headers=headers)).status_code)

        async with trio.open_nursery() as nursery:
            if turn % 2:
                nursery.start_soon(redeem)
            await queue.send_all(source)
            if not turn % 2:
                nursery.start_soon(redeem)
        done, refused = 0, []
        while done + len(refused) < len(names):
            message = await source.receive(STATE_UPDATE, ERROR)
            if message["type"] == ERROR:
                refused.append(message["payload"]["code"])
            elif message["payload"]["changes"].get("log"):
                done += 1
            queue.took(message)
        await source.auth(mint("ann"), "phone", session_id=queue.session, stream="q", acked=done)
        await queue.send_all(source)
        while queue.left:
            queue.took(await source.receive())
        log = (await source.request(3))["payload"]["state_data"]["log"]
        await source.kill()

    assert [200] == statuses
    assert {*refused} <= {"fenced"}
    assert names == log


SHORT = {"SYNCBRIDGE_PRESENCE_TIMEOUT": "4s", "SYNCBRIDGE_HEARTBEAT_INTERVAL": "1s"}


async def test_rollback_between_a_death_and_its_sweep(tmp_path: Path) -> None:
    """24: a node dies, and Redis goes back before anybody has noticed: each of its devices leaves
    once, and none of the living node's does."""
    with (
        RedisServer() as server,
        server_process(tmp_path, server.url, **SHORT) as doomed,
        server_process(tmp_path, server.url, **SHORT) as other,
    ):
        way = Restart(server.url, server)
        session = new_session()
        opened = []
        for name, node in (("watch", other), ("mate", other), ("a", doomed), ("b", doomed)):
            opened.append(await Device.open(node.port))
            await opened[-1].auth(mint("ann"), name, session_id=session)
        await opened[0].set("n", 1)
        way.mark()
        doomed.kill()
        way.go_back()
        watch = opened[0]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen, opened[1])
            nursery.start_soon(listen, watch)
            await until(lambda: sum(kind == LEFT for kind, *_ in events(watch)) == 2, 6 * PATIENCE)
            await trio.sleep(6)  # a whole lease more: nobody else is swept
            nursery.cancel_scope.cancel()
        listed = (await watch.request(12))["payload"]["devices"]
        told = events(watch)
        for device in opened:
            await device.kill()

    assert [(JOINED, name, "") for name in ("mate", "a", "b")] == told[:3]
    assert [(LEFT, name, "timeout") for name in ("a", "b")] == sorted(told[3:])
    assert {"watch", "mate"} == {d["device_id"] for d in listed if d["status"] == "online"}


def events(device: Device) -> list[tuple[int, str, str]]:
    """What a device was told of the others."""
    found = [m for m in device.seen if m["type"] in (JOINED, LEFT)]
    return [(m["type"], m["payload"]["device_id"], m["payload"].get("reason", "")) for m in found]


async def listen(device: Device) -> None:
    """Read what a device is told, and answer pings, for ever."""
    while True:
        with contextlib.suppress(trio.TooSlowError):
            await device.receive(JOINED, LEFT)
