"""Redis comes back older, or empty: every device has the true state and is told, makers of lost
updates are told which, and what they send again counts once."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio

from support.redis_servers import until
from support.rollback.kit import PATIENCE, WAYS, Copy, Room, Way, stored, way_back
from support.server_kit import Node, bearer, mint, running_node
from support.ws_client import Device
from syncbridge.identity import Role

ADMIN_UPDATE = 14
VALUES: dict[str, Any] = {"rate_limit_enabled": False, "presence_timeout": 600.0}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Iterator[Way]:
    """Each way back."""
    with way_back(request.param) as made:
        yield made


@pytest.fixture
def rdb() -> Iterator[Way]:
    """A restart from the last RDB file."""
    with way_back("rdb") as made:
        yield made


async def write_in_turn(copies: list[Copy], first: int, last: int) -> None:
    """Versions `first` to `last`; each device writes its share, and all see everything."""
    for version in range(first, last + 1):
        maker = copies[version % len(copies)]
        answer = await maker.write(**{"n": version, f"k{version}": maker.name})
        assert (5, version) == (answer["type"], answer["payload"]["version"]), answer
        for copy in copies:
            await copy.reaches(version)


def named(way: Way) -> str:
    """The reason that devices are given."""
    return "epoch" if type(way).__name__ == "Flushed" else "rolled_back"


def back_to(way: Way) -> int:
    return 0 if type(way).__name__ == "Flushed" else 5


def lost_of(copy: Copy, applied: int) -> list[str]:
    return [name for seq, name in copy.ids.items() if seq > applied]


async def test_sockets_that_are_open(way: Way) -> None:
    """1, 5, 7, 8: nobody writes, and all are told within a comparison; then life goes on."""
    async with (
        running_node(way.url, **VALUES) as one,
        running_node(way.url, **VALUES) as two,
        Room() as room,
    ):
        session = room.session
        phone, tablet = await room.join(one, "phone"), await room.join(two, "tablet")
        watch = await room.join(one, "watch")
        makers = [phone, tablet]
        await write_in_turn(makers, 1, 5)
        had = {copy.name: copy.acked if back_to(way) else 0 for copy in makers}
        way.mark()
        await probed(one, two)
        await write_in_turn(makers, 6, 10)
        await watch.reaches(10)
        lost = {copy.name: lost_of(copy, had[copy.name]) for copy in makers}
        way.go_back()
        told = {copy.name: await copy.reset() for copy in (phone, tablet, watch)}
        state, place = await stored(one, session)

        assert back_to(way) == place[0]
        for copy in (phone, tablet, watch):
            assert (state, place) == (copy.state, copy.place), copy.name
            assert named(way) == told[copy.name]["reason"]
        for copy in makers:
            assert had[copy.name] == told[copy.name]["applied"] == copy.acked
            assert lost[copy.name] == told[copy.name].get("lost", [])
        assert 0 == told["watch"]["applied"]

        await settled(one, two)
        for version, copy in enumerate((phone, tablet, phone), back_to(way) + 1):
            answer = await copy.write(again=version)
            assert version == answer["payload"]["version"], answer
            for each in (phone, tablet, watch):
                await each.reaches(version)
        assert phone.state == tablet.state == watch.state == (await stored(two, session))[0]
        figures = dict(one.server.gateway.fanout.rollbacks.figures())
        assert 1 <= figures["rolled_back_sessions_total"]
        assert len(lost["phone"]) == figures["lost_updates_total"]


async def probed(*nodes: Node) -> None:
    """The witness was written once more: a mark between two probes could not be told from now."""
    for readiness in [node.server.readiness for node in nodes]:
        number = readiness._number
        await until(lambda readiness=readiness, number=number: readiness._number > number, PATIENCE)


async def settled(*nodes: Node) -> None:
    """All that a node holds in Redis is there again, and Redis is ready for each."""
    await probed(*nodes)
    await until(lambda: not any(n.server.store_reason for n in nodes), PATIENCE)
    await until(lambda: not any(n.server.gateway.presence.verifying for n in nodes), PATIENCE)


async def test_nobody_was_connected(way: Way) -> None:
    """3: others wrote to v16; who resumes at v10 is given the whole, at v4 what it can be."""
    async with (
        running_node(way.url, **VALUES) as one,
        running_node(way.url, **VALUES) as two,
        Room() as room,
    ):
        session = room.session
        phone, tablet = await room.join(one, "phone"), await room.join(two, "tablet")
        await write_in_turn([phone, tablet], 1, 4)
        early = Copy(tablet.device, "tablet", session, dict(tablet.state), tablet.place)
        early.acked, early.ids = tablet.acked, dict(tablet.ids)
        await write_in_turn([phone, tablet], 5, 5)
        had = {copy.name: copy.acked if back_to(way) else 0 for copy in (phone, tablet)}
        way.mark()
        await probed(one, two)
        await write_in_turn([phone, tablet], 6, 10)
        for copy in (phone, tablet):
            await copy.device.close()
        await until(lambda: not one.server.gateway.registry.sessions, PATIENCE)
        way.go_back()
        await settled(one, two)
        laptop = await room.join(two, "laptop")
        for version in range(back_to(way) + 1, 17):
            await laptop.write(n=version)
        again = await room.join(one, "phone", phone)
        old = await room.join(one, "tablet", early)
        state, place = await stored(one, session)

        assert 16 == place[0]
        for copy in (again, old):
            assert (state, place) == (copy.state, copy.place), copy.name
        welcome = again.device.welcome
        assert (True, named(way)) == (welcome["reset"], welcome["reason"])
        assert had["phone"] == welcome["applied"]
        if back_to(way):
            assert old.device.welcome["resumed"]
            assert had["tablet"] == old.device.welcome["applied"]


async def test_mixed(way: Way) -> None:
    """One is connected while it happens, one comes back later: both have the true state."""
    async with (
        running_node(way.url, **VALUES) as one,
        running_node(way.url, **VALUES) as two,
        Room() as room,
    ):
        session = room.session
        phone, tablet = await room.join(one, "phone"), await room.join(two, "tablet")
        await write_in_turn([phone, tablet], 1, 5)
        had = phone.acked if back_to(way) else 0
        way.mark()
        await probed(one, two)
        await write_in_turn([phone, tablet], 6, 10)
        await phone.device.close()
        way.go_back()
        await tablet.reset()
        await settled(one, two)
        again = await room.join(one, "phone", phone)
        assert (named(way), had) == (
            again.device.welcome["reason"],
            again.device.welcome["applied"],
        )
        await again.write(after=1)
        await tablet.reaches(back_to(way) + 1)
        assert (again.state, again.place) == (tablet.state, tablet.place)
        assert (again.state, again.place) == await stored(two, session)


async def test_write_before_the_comparison(rdb: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """2: the number tells of the loss; nobody takes the new v6 for what comes after v10."""
    monkeypatch.setattr("syncbridge_server.gateway.presence.Presence.doubt", lambda self: None)
    async with running_node(rdb.url, **VALUES) as node, Room() as room:
        session = room.session
        phone, watch = await room.join(node, "phone"), await room.join(node, "watch")
        await write_in_turn([phone, watch], 1, 5)
        rdb.mark()
        await write_in_turn([phone, watch], 6, 10)
        had = 2
        rdb.go_back()
        await until(lambda: not node.server.store_reason, PATIENCE)
        answer = await phone.write(late=True)
        assert ("sequence_gap", had) == (
            answer["payload"]["code"],
            answer["payload"]["details"]["last"],
        )
        for copy in (phone, watch):
            if not copy.resets:
                await copy.reset()
        answer = await phone.write(late=True)
        assert 6 == answer["payload"]["version"]
        await watch.reaches(6)
        assert phone.state == watch.state == (await stored(node, session))[0]


async def test_operators_are_told_once(rdb: Way) -> None:
    """One notice to administrators, and the metrics: how many sessions and updates."""
    async with running_node(rdb.url, **VALUES) as node, Room() as room, node.http() as http:
        phone, watch = await room.join(node, "phone"), await room.join(node, "watch")
        await write_in_turn([phone, watch], 1, 5)
        async with await Device.open(node.port) as console:
            await console.auth(mint("root", Role.ADMIN), "console")
            rdb.mark()
            await write_in_turn([phone, watch], 6, 10)
            rdb.go_back()
            for copy in (phone, watch):
                await copy.reset()
            await until(lambda: not node.server.gateway.presence.verifying, PATIENCE)
            notices = [(await console.receive(ADMIN_UPDATE))["payload"]]
            while notices[-1]["notice"] != "store_rolled_back":
                notices.append((await console.receive(ADMIN_UPDATE))["payload"])
            node.server.administration.notice("last", "nothing came between")
            notices.append((await console.receive(ADMIN_UPDATE))["payload"])
        text = (await http.get("/metrics")).text

    assert ["store_rolled_back", "last"] == [each["notice"] for each in notices]
    assert {"sessions": 1, "updates_lost": 5} == notices[0]["data"]
    for line in ("rolled_back_sessions_total 1.0", "lost_updates_total 5.0"):
        assert f"syncbridge_store_{line}" in text


async def test_far_behind_after_a_rollback(rdb: Way) -> None:
    """4: the others went on to v400, so that the place is not known: `resync`, and the loss of
    updates is still exact."""
    async with running_node(rdb.url, **VALUES) as node, Room() as room:
        phone = await room.join(node, "phone")
        await write_in_turn([phone], 1, 5)
        rdb.mark()
        await write_in_turn([phone], 6, 10)
        await phone.device.close()
        rdb.go_back()
        await settled(node)
        laptop = await room.join(node, "laptop")
        for version in range(6, 401):
            await laptop.write(n=version)
        again = await room.join(node, "phone", phone)
    assert ("resync", 5) == (again.device.welcome["reason"], again.device.welcome["applied"])
    assert again.state == laptop.state


async def test_sum_is_offered_again_and_counts_once(rdb: Way) -> None:
    """16: acknowledged, lost, offered under its new number, and that repeated after 600 others."""
    incr = {"key": "n", "value": 5, "operation": "INCR"}
    async with running_node(rdb.url, **VALUES) as node, Room() as room:
        session = room.session
        phone, laptop = await room.join(node, "phone"), await room.join(node, "laptop")
        await phone.update(incr)
        rdb.mark()
        await phone.update(incr)
        rdb.go_back()
        assert 1 == (await phone.reset())["applied"]
        await phone.update(incr)
        for n in range(600):
            await laptop.write(x=n)
        phone.acked -= 1
        again = await phone.update(incr)
        state, _ = await stored(node, session)
    assert (True, 2) == (again["payload"]["duplicate"], again["payload"]["seq"])
    assert 10 == state["n"]


async def test_places_of_the_lost_history(rdb: Way) -> None:
    """19: another v10 has another entity tag, and is not the base that a writer has seen."""
    headers = bearer(mint("ann"))
    async with running_node(rdb.url, **VALUES) as node, node.http() as http, Room() as room:
        session = room.session
        phone = await room.join(node, "phone")
        await write_in_turn([phone], 1, 5)
        rdb.mark()
        await write_in_turn([phone], 6, 10)
        lost = await http.get(f"/session/{session}", headers=headers)
        rdb.go_back()
        await phone.reset()
        await settled(node)
        for version in range(6, 11):
            await phone.write(other=version)
        tag = {"If-None-Match": lost.headers["etag"]}
        read = await http.get(f"/session/{session}", headers=headers | tag)
        change = {"session_id": session, "base_version": 10, "changes": {"n": 0}}
        refused = await http.post(
            "/session/incremental",
            headers=headers,
            json=change | {"base_lineage": lost.json()["lineage"]},
        )
        done = await http.post(
            "/session/incremental",
            headers=headers,
            json=change | {"base_lineage": read.json()["lineage"]},
        )
    assert (200, 10, 10) == (read.status_code, read.json()["version"], lost.json()["version"])
    assert (409, "base_lost") == (refused.status_code, refused.json()["code"])
    assert (200, 11) == (done.status_code, done.json()["version"])


async def test_rollback_while_a_device_joins(rdb: Way) -> None:
    """6, 14: a newcomer is not given what is lost, although its node still has it."""
    async with running_node(rdb.url, **VALUES) as node, Room() as room:
        phone = await room.join(node, "phone")
        await write_in_turn([phone], 1, 5)
        rdb.mark()
        await write_in_turn([phone], 6, 10)
        rdb.go_back()
        watch = None
        with trio.fail_after(PATIENCE):
            while watch is None:
                try:
                    watch = await room.join(node, "watch")
                except AssertionError:  # Redis is not there yet
                    await trio.sleep(0.05)
        assert (5, phone.place[1]) == watch.place[:2]
        if not phone.resets:
            await phone.reset()
        assert (phone.state, phone.place) == (watch.state, watch.place)


async def test_backup_that_is_put_back_key_by_key() -> None:
    """Redis was emptied, and devices were told. The session that is there again a while later is
    found although nothing is written, and with it the number of the device's last update."""
    with way_back("backup") as way:
        async with running_node(way.url, **VALUES) as node, Room() as room:
            phone = await room.join(node, "phone")
            for version in range(1, 6):
                await phone.write(n=version)
            with way.raw() as raw:
                names = [name for name in raw.scan_iter() if name.startswith(b"s:")]
                kept = {name: raw.dump(name) for name in names}
                raw.flushall()
                emptied = await phone.reset()
                for name, dump in kept.items():
                    raw.restore(name, 0, dump, replace=True)
            told = await phone.reset()
            answer = await phone.write(n=6)

    assert ("epoch", 0, 0) == (emptied["reason"], emptied["version"], emptied["applied"])
    assert ("epoch", 5, {"n": 5}) == (told["reason"], told["version"], told["state_data"])
    assert (5, 5, 6) == (told["applied"], answer["type"], answer["payload"]["version"])
