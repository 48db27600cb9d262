"""Devices over HTTP and DEVICE_LIST: who is there, and signing one out, on any node."""

import contextlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import httpx
import pytest
import trio
from wsproto.utilities import LocalProtocolError

from support.redis_servers import until
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device

STATE_UPDATE, JOINED, LEFT, DEVICE_LIST = 5, 10, 11, 12
METADATA = {"device_type": "mobile", "device_name": "iPhone 13", "os_version": "17.1"}


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[tuple[Node, Node]]:
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        yield one, two


@pytest.fixture
async def http(nodes: tuple[Node, Node]) -> AsyncIterator[httpx.AsyncClient]:
    async with nodes[0].http() as client:
        client.headers.update(bearer(mint("ann")))
        yield client


async def join(node: Node, session: str, device_id: str, **extra: Any) -> Device:
    device = await Device.open(node.port)
    await device.auth(mint("ann"), device_id, session_id=session, **extra)
    return device


async def listed(http: httpx.AsyncClient, session: str) -> dict[str, dict[str, Any]]:
    body = (await http.get(f"/session/{session}/devices")).json()
    assert body["total"] == len(body["devices"])
    return {device["device_id"]: device for device in body["devices"]}


async def test_devices_are_listed_with_their_metadata(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """Devices of both nodes; one that has left is offline and keeps when it was seen."""
    session = new_session()
    async with await join(nodes[0], session, "phone", **METADATA) as phone:
        await phone.set("a", 1)
        async with await join(nodes[1], session, "tablet") as tablet:
            await phone.receive(JOINED)
            both = await http.get(f"/session/{session}/devices")
            await tablet.close()
            await phone.receive(LEFT)
        after = await listed(http, session)

    body = both.json()
    assert (session, 2) == (body["session_id"], body["total"])
    phone_body = next(d for d in body["devices"] if d["device_id"] == "phone")
    assert [
        "device_id",
        "device_type",
        "device_name",
        "os_version",
        "status",
        "connected_at",
        "last_seen",
    ] == list(phone_body)
    assert phone_body.items() >= (METADATA | {"status": "online"}).items()
    assert ["online", "online"] == [d["status"] for d in body["devices"]]
    assert {"phone": "online", "tablet": "offline"} == {d: v["status"] for d, v in after.items()}
    for device in after.values():
        connected = datetime.fromisoformat(device["connected_at"])
        assert connected <= datetime.fromisoformat(device["last_seen"])


async def test_who_may_list_devices(nodes: tuple[Node, Node], http: httpx.AsyncClient) -> None:
    """404 for what is not there, 403 for another user's, 401 for nobody."""
    session = new_session()
    async with await join(nodes[0], session, "phone") as phone:
        await phone.set("a", 1)
        path = f"/session/{session}/devices"
        foreign = await http.get(path, headers=bearer(mint("bob")))
        nobody = await http.get(path, headers={"Authorization": ""})
        gone = await http.get(f"/session/{new_session()}/devices")
        no_uuid = await http.get("/session/nonsense/devices")

    assert [403, 401, 404, 404] == [
        answer.status_code for answer in (foreign, nobody, gone, no_uuid)
    ]
    assert "session_not_found" == gone.json()["code"]


async def test_device_list_over_the_socket(nodes: tuple[Node, Node]) -> None:
    """DEVICE_LIST is answered with the devices of all nodes, under the request's id."""
    session = new_session()
    async with await join(nodes[0], session, "phone", **METADATA) as phone:
        async with await join(nodes[1], session, "tablet"):
            answer = await phone.request(DEVICE_LIST, {}, "list-1")

    assert (DEVICE_LIST, "list-1") == (answer["type"], answer["correlation_id"])
    devices = {d["device_id"]: d for d in answer["payload"]["devices"]}
    assert 2 == answer["payload"]["total"]
    assert {"phone": "online", "tablet": "online"} == {d: v["status"] for d, v in devices.items()}
    assert devices["phone"].items() >= METADATA.items()
    assert devices["phone"]["connected_at"] <= devices["phone"]["last_seen"]


@pytest.mark.parametrize("here", [True, False], ids=["same-node", "other-node"])
async def test_a_removed_device_is_closed_and_the_others_are_told(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, here: bool
) -> None:
    """204; 4010; DEVICE_LEFT once, reason disconnected; it is not in the list any more."""
    session = new_session()
    async with await join(nodes[1], session, "watch") as watch:
        await watch.set("a", 1)
        async with await join(nodes[0 if here else 1], session, "phone") as phone:
            await watch.receive(JOINED)
            answer = await http.delete(f"/session/{session}/device/phone")
            closed = await phone.closed()
        left = await watch.receive(LEFT)
        after = await listed(http, session)
        await watch.set("b", 2)

    assert (204, b"") == (answer.status_code, answer.content)
    assert 4010 == closed.code
    assert ("phone", "disconnected") == (left["payload"]["device_id"], left["payload"]["reason"])
    assert {"watch"} == after.keys()
    assert 1 == sum('"type":11' in text for text in watch.raw)


async def test_a_removed_device_may_come_again_but_not_write_on(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """What its old socket still sends is refused; after a new AUTH it writes."""
    session = new_session()
    phone = await join(nodes[1], session, "phone")
    await phone.set("a", 1)
    await http.delete(f"/session/{session}/device/phone")
    await phone.send(STATE_UPDATE, {"key": "a", "value": 2})
    closed = await phone.closed()
    async with await join(nodes[1], session, "phone") as again:
        ack = await again.set("a", 3)

    assert 4010 == closed.code
    assert 2 == ack["payload"]["version"]


async def test_signed_out_before_the_join_is_answered(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node hears of it before it knows that the device is there: the socket closes all the
    same, and to the others it never was there, or came and left."""
    session, gateway = new_session(), nodes[1].server.gateway
    answers: list[Any] = []
    async with (
        await join(nodes[1], session, "watch") as watch,
        await Device.open(nodes[1].port) as phone,
    ):
        await watch.set("a", 1)
        with monkeypatch.context() as patch:
            patch.setattr(gateway._joining, "_welcomed", lambda *each: answers.append(each))
            hello = {"token": mint("ann"), "device_id": "phone", "session_id": session}
            await phone.send(7, hello, "join")
            await until(lambda: bool(answers))
        heard = gateway.departures.early
        assert 204 == (await http.delete(f"/session/{session}/device/phone")).status_code
        await until(lambda: bool(heard))
        for answer in answers:
            gateway._joining._welcomed(*answer)
        closed = await phone.closed()
        after = await listed(http, session)
        await watch.set("b", 2)
        events = [m["type"] for m in watch.seen if m["type"] in (JOINED, LEFT)]

    assert 4010 == closed.code
    assert {"watch"} == after.keys()
    assert events in ([], [JOINED, LEFT])
    assert not heard


async def test_signed_out_while_it_writes(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """Ten times, with writes under way: what was acknowledged is stored, and from the answer to
    the sign-out on nothing more is."""
    session, told = new_session(), list[int]()
    for turn in range(10):
        phone = await join(nodes[1], session, "phone")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count, phone, f"n{turn}", 60)
            for _ in range(turn):
                await phone.receive(STATE_UPDATE)
            answer = await http.delete(f"/session/{session}/device/phone")
            first = await http.get(f"/session/{session}")
            closed = await phone.closed()
            second = await http.get(f"/session/{session}")
            nursery.cancel_scope.cancel()

        assert (204, 4010) == (answer.status_code, closed.code)
        assert first.json().get("version") == second.json().get("version")
        # At first it may be over before it has written anything: then there is no session.
        counted = second.json().get("state_data", {}).get(f"n{turn}", 0)
        told.append(sum(m["type"] == STATE_UPDATE for m in phone.seen))
        assert told[-1] <= counted <= 60
    assert min(told) < 60


async def count(device: Device, key: str, times: int) -> None:
    """Add one again and again, without waiting for answers, for as long as that is possible."""
    with contextlib.suppress(trio.BrokenResourceError, LocalProtocolError):
        for number in range(times):
            body = {"key": key, "value": 1, "operation": "INCR"}
            await device.send(STATE_UPDATE, body, f"{key}-{number}")
            await trio.lowlevel.checkpoint()


async def test_removing_what_is_not_there(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """404 for an unknown device, also the second time, and for an unknown session; 403."""
    session = new_session()
    async with await join(nodes[0], session, "phone") as phone:
        await phone.set("a", 1)
        foreign = await http.delete(f"/session/{session}/device/phone", headers=bearer(mint("bob")))
        unknown = await http.delete(f"/session/{session}/device/nobody")
        no_session = await http.delete(f"/session/{new_session()}/device/phone")
        beat = await phone.request(1)
    await http.delete(f"/session/{session}/device/phone")
    twice = await http.delete(f"/session/{session}/device/phone")

    assert 2 == beat["type"]
    assert [403, 404, 404, 404] == [
        answer.status_code for answer in (foreign, unknown, no_session, twice)
    ]
    assert "device_not_found" == unknown.json()["code"] == twice.json()["code"]
    assert "session_not_found" == no_session.json()["code"]


async def test_an_offline_device_is_removed_in_silence(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """It had left already: nobody is told again."""
    session = new_session()
    async with await join(nodes[0], session, "watch") as watch:
        await watch.set("a", 1)
        phone = await join(nodes[1], session, "phone")
        await phone.close()
        await watch.receive(LEFT)
        answer = await http.delete(f"/session/{session}/device/phone")
        await watch.set("b", 1)
        await trio.testing.wait_all_tasks_blocked(0.05)
        after = await listed(http, session)

    assert 204 == answer.status_code
    assert 1 == sum('"type":11' in text for text in watch.raw)
    assert {"watch"} == after.keys()


async def test_ids_with_odd_characters(nodes: tuple[Node, Node], http: httpx.AsyncClient) -> None:
    """A slash, braces and letters of any script: an id is an id."""
    session, odd = new_session(), "a/b {ü}?"
    async with await join(nodes[0], session, odd) as device:
        await device.set("a", 1)
        before = await listed(http, session)
        path = f"/session/{session}/device/a%2Fb%20%7B%C3%BC%7D%3F"
        answer = await http.delete(path)
        closed = await device.closed()

    assert {odd} == before.keys()
    assert 204 == answer.status_code
    assert 4010 == closed.code
