"""Handing a session over: a token that works once, for one device; a source that is released."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from support.redis_places import client_of
from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Role
from syncbridge_server.redis.stores.keys import handoff_key

AUTH, AUTH_SUCCESS, STATE_UPDATE, ERROR, JOINED, LEFT = 7, 8, 5, 6, 10, 11
PAIR = {"source_device": "phone", "target_device": "tablet"}


@pytest.fixture
async def nodes(redis_url: str) -> AsyncIterator[tuple[Node, Node]]:
    fast = {"rate_limit_enabled": False}
    async with running_node(redis_url, **fast) as one, running_node(redis_url, **fast) as two:
        yield one, two


@pytest.fixture
async def http(nodes: tuple[Node, Node]) -> AsyncIterator[httpx.AsyncClient]:
    async with nodes[0].http() as client:
        client.headers.update(bearer(mint("ann")))
        yield client


async def join(node: Node, session: str, device_id: str) -> Device:
    device = await Device.open(node.port)
    await device.auth(mint("ann"), device_id, session_id=session)
    return device


async def created(http: httpx.AsyncClient, state: dict[str, Any] | None = None) -> str:
    """A session with a state and no devices."""
    session = new_session()
    body = {"session_id": session, "user_id": "ann", "state_data": state or {"a": 1}}
    assert 201 == (await http.post("/session/snapshot", json=body)).status_code
    return session


async def overwrite(http: httpx.AsyncClient, session: str, state: dict[str, Any]) -> dict[str, Any]:
    """A second version."""
    body = {"session_id": session, "user_id": "ann", "state_data": state, "version": 1}
    answer = await http.post("/session/snapshot", json=body)
    assert (200, 2) == (answer.status_code, answer.json()["version"])
    written: dict[str, Any] = answer.json()
    return written


async def token_for(http: httpx.AsyncClient, session: str) -> str:
    answer = await http.post(f"/session/{session}/handoff", json=PAIR)
    assert 201 == answer.status_code, answer.text
    token: str = answer.json()["token"]
    return token


def as_device(device_id: str) -> dict[str, str]:
    return {"X-Device-ID": device_id}


async def test_the_target_gets_the_state_as_it_is_at_redemption(http: httpx.AsyncClient) -> None:
    """201 with a token for five minutes; 200 with the newest state; nothing is cached."""
    session = await created(http)
    answer = await http.post(f"/session/{session}/handoff", json=PAIR)
    body = answer.json()
    written = await overwrite(http, session, {"a": 2, "b": [1]})
    redeemed = await http.get(
        f"/session/{session}/handoff/{body['token']}", headers=as_device("tablet")
    )

    assert 201 == answer.status_code
    assert ["token", "session_id", "source_device", "target_device", "expires_at"] == list(body)
    assert 43 == len(body["token"].partition(".")[0])
    assert PAIR.items() <= body.items()
    assert 200 == redeemed.status_code
    assert {
        "valid": True,
        "session_id": session,
        **PAIR,
        "version": 2,
        "epoch": written["epoch"],
        "lineage": written["lineage"],
        "state_data": {"a": 2, "b": [1]},
    } == redeemed.json()
    assert {"no-store"} == {a.headers["cache-control"] for a in (answer, redeemed)}


async def test_redis_never_has_the_token(http: httpx.AsyncClient, redis_url: str) -> None:
    """It is stored under its SHA-256, in the session's slot."""
    session = await created(http)
    token = await token_for(http, session)
    with client_of(redis_url) as client:
        keys = {key.decode() for key in client.scan_iter(f"{handoff_key(session)}*")}
        texts = [client.hgetall(key) for key in keys if client.type(key) == b"hash"]

    digest = hashlib.sha256(token.encode()).hexdigest()
    assert {handoff_key(session, digest), handoff_key(session)} == keys
    assert token.encode() not in b"".join(v for text in texts for v in text.values())


async def test_only_the_target_and_only_once(http: httpx.AsyncClient) -> None:
    """403 burns nothing; the target may read its own answer again, another device may not."""
    session = await created(http)
    path = f"/session/{session}/handoff/{await token_for(http, session)}"
    wrong = await http.get(path, headers=as_device("watch"))
    source = await http.get(path, headers=as_device("phone"))
    first = await http.get(path, headers=as_device("tablet"))
    await overwrite(http, session, {"later": True})
    again = await http.get(path, headers=as_device("tablet"))
    unnamed = await http.get(path)
    late = await http.get(path, headers=as_device("watch"))

    assert [403, 403, 200, 200, 200, 410] == [
        answer.status_code for answer in (wrong, source, first, again, unnamed, late)
    ]
    assert first.json() == again.json() == unnamed.json(), "its own answer, not a newer one"
    assert ("wrong_device", "handoff_used") == (wrong.json()["code"], late.json()["code"])


async def test_the_answer_can_be_read_again_only_for_a_while(redis_url: str) -> None:
    """After that the token is used up, for the target too."""
    async with (
        running_node(redis_url, handoff_reread=0.2, rate_limit_enabled=False) as node,
        node.http() as http,
    ):
        http.headers.update(bearer(mint("ann")))
        session = await created(http)
        path = f"/session/{session}/handoff/{await token_for(http, session)}"
        codes = [(await http.get(path)).status_code]
        with trio.fail_after(5):
            while codes[-1] == 200:
                codes.append((await http.get(path)).status_code)
        with client_of(redis_url) as client:
            kept = client.exists(handoff_key(session, "a"))

    assert 410 == codes[-1]
    assert 0 == kept


async def test_expired_and_unknown_are_told_apart(redis_url: str) -> None:
    """410 for a token that was one, 404 for one that never was."""
    async with running_node(redis_url, handoff_ttl=0.1) as node, node.http() as http:
        http.headers.update(bearer(mint("ann")))
        session = await created(http)
        token = await token_for(http, session)
        await trio.sleep(0.15)
        expired = await http.get(f"/session/{session}/handoff/{token}")
        unknown = await http.get(f"/session/{session}/handoff/{token[::-1]}")
        elsewhere = await http.get(f"/session/{await created(http)}/handoff/{token}")
        no_session = await http.get(f"/session/{new_session()}/handoff/{token}")

    assert [410, 404, 404, 404] == [
        answer.status_code for answer in (expired, unknown, elsewhere, no_session)
    ]
    assert "handoff_expired" == expired.json()["code"]
    assert "handoff_not_found" == unknown.json()["code"] == elsewhere.json()["code"]
    assert "session_not_found" == no_session.json()["code"]


async def test_who_may_hand_over_and_redeem(http: httpx.AsyncClient) -> None:
    """Owner and service; another user gets 403 and burns nothing; a device's token is its own."""
    session = await created(http)
    path = f"/session/{session}/handoff"
    foreign = await http.post(path, json=PAIR, headers=bearer(mint("bob")))
    missing = await http.post(f"/session/{new_session()}/handoff", json=PAIR)
    service = await http.post(path, json=PAIR, headers=bearer(mint("svc", Role.SERVICE)))
    path = f"{path}/{service.json()['token']}"
    taken = await http.get(path, headers=bearer(mint("bob")))
    phone = bearer(mint("ann", device="phone"))
    other = await http.get(path, headers=phone)
    lying = await http.get(path, headers=phone | as_device("tablet"))
    right = await http.get(path, headers=bearer(mint("ann", device="tablet")))

    assert [403, 404, 201, 403, 403, 403, 200] == [
        a.status_code for a in (foreign, missing, service, taken, other, lying, right)
    ]
    assert ("wrong_device", "wrong_device") == (other.json()["code"], lying.json()["code"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"source_device": "a", "target_device": "a"}, 422),
        ({"source_device": "a"}, 422),
        ({"source_device": "", "target_device": "b"}, 422),
        ({"source_device": "a", "target_device": "b\n"}, 422),
        ({"source_device": "a" * 65, "target_device": "b"}, 422),
        ({"source_device": 1, "target_device": "b"}, 422),
        ([], 422),
    ],
)
async def test_bad_requests(http: httpx.AsyncClient, body: Any, status: int) -> None:
    """422 names the field; nothing is stored."""
    session = await created(http)
    answer = await http.post(f"/session/{session}/handoff", json=body)

    assert (status, "invalid_field") == (answer.status_code, answer.json()["code"])


async def test_head_does_not_use_the_token_up(http: httpx.AsyncClient) -> None:
    """405: a preview of a link must not redeem it."""
    session = await created(http)
    path = f"/session/{session}/handoff/{await token_for(http, session)}"
    head = await http.head(path)
    got = await http.get(path)

    assert [405, 200] == [head.status_code, got.status_code]


@pytest.mark.parametrize("here", [True, False], ids=["same-node", "other-node"])
async def test_the_source_is_told_and_released(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, here: bool
) -> None:
    """All devices hear that it left, it too; it reads on, and may write after AUTH."""
    session = new_session()
    async with (
        await join(nodes[0 if here else 1], session, "phone") as phone,
        await join(nodes[1], session, "watch") as watch,
    ):
        await phone.set("a", 1)
        path = f"/session/{session}/handoff/{await token_for(http, session)}"
        await http.get(path, headers=as_device("tablet"))
        told = [(await device.receive(LEFT))["payload"] for device in (phone, watch)]
        refused = await phone.set("a", 2)
        await watch.set("b", 1)
        seen = (await phone.receive(STATE_UPDATE))["payload"]
        listed = (await http.get(f"/session/{session}/devices")).json()["devices"]
        payload = {"token": mint("ann"), "device_id": "phone", "session_id": session}
        back = await phone.request(AUTH, payload)
        joined = await watch.receive(JOINED)
        ack = await phone.set("a", 3)
        relisted = (await http.get(f"/session/{session}/devices")).json()["devices"]

    expected = {
        "device_id": "phone",
        "status": "offline",
        "reason": "handoff",
        "target_device": "tablet",
        "version": 1,
    }
    assert [expected, expected] == told
    assert (ERROR, "fenced", False) == (
        refused["type"],
        refused["payload"]["code"],
        refused["payload"]["retryable"],
    )
    assert {"b": 1} == seen["changes"]
    assert {"phone": "offline", "watch": "online"} == {d["device_id"]: d["status"] for d in listed}
    assert AUTH_SUCCESS == back["type"]
    assert "phone" == joined["payload"]["device_id"]
    assert 3 == ack["payload"]["version"]
    assert ["online"] * 2 == [d["status"] for d in relisted]


async def test_a_released_source_that_goes_is_not_told_again(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """It has left already when its socket closes."""
    session = new_session()
    async with await join(nodes[1], session, "watch") as watch:
        phone = await join(nodes[1], session, "phone")
        await phone.set("a", 1)
        await http.get(f"/session/{session}/handoff/{await token_for(http, session)}")
        await watch.receive(LEFT)
        await phone.close()
        async with await join(nodes[1], session, "phone"):
            await watch.receive(JOINED)

    assert 1 == sum('"type":11' in text for text in watch.raw)


async def race(http: httpx.AsyncClient, path: str, devices: list[str | None]) -> list[Any]:
    """All at once; the answers in the order of the devices."""
    answers: list[Any] = [None] * len(devices)

    async def redeem(number: int, device: str | None) -> None:
        answers[number] = await http.get(path, headers=as_device(device) if device else {})

    async with trio.open_nursery() as nursery:
        for number, device in enumerate(devices):
            nursery.start_soon(redeem, number, device)
    return answers


@pytest.mark.parametrize("where", [0, 1])
async def test_a_released_source_can_still_be_removed(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, where: int
) -> None:
    """Its socket, which only reads by now, is closed on whatever node it is."""
    session = await created(http)
    async with await join(nodes[where], session, "phone") as phone:
        token = await token_for(http, session)
        redeemed = await http.get(
            f"/session/{session}/handoff/{token}", headers=as_device("tablet")
        )
        await phone.receive(LEFT)
        removed = await http.delete(f"/session/{session}/device/phone")
        closed = await phone.closed()

    assert (200, 204) == (redeemed.status_code, removed.status_code)
    assert 4010 == closed.code


async def test_a_hundred_devices_race_for_one_token(
    nodes: tuple[Node, Node], http: httpx.AsyncClient
) -> None:
    """Exactly one is the target; the source is released once; nobody gets anything else."""
    session = new_session()
    async with await join(nodes[1], session, "phone") as phone:
        await phone.set("a", 1)
        path = f"/session/{session}/handoff/{await token_for(http, session)}"
        answers = await race(http, path, [*(f"d{n}" for n in range(99)), "tablet"])
        await phone.receive(LEFT)
        await phone.request(1)

    assert 200 == answers[-1].status_code
    assert {403, 410} >= {answer.status_code for answer in answers[:-1]}
    assert 1 == sum('"type":11' in text for text in phone.raw)


@pytest.mark.parametrize("device", ["tablet", None], ids=["named", "unnamed"])
async def test_a_hundred_redemptions_of_the_target_are_one(
    nodes: tuple[Node, Node], http: httpx.AsyncClient, device: str | None
) -> None:
    """The same answer each time, while the session goes on; the source is released once."""
    session = new_session()
    async with (
        await join(nodes[1], session, "phone") as phone,
        await join(nodes[1], session, "watch") as watch,
    ):
        await phone.set("a", 1)
        path = f"/session/{session}/handoff/{await token_for(http, session)}"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scribble, watch)
            answers = await race(http, path, [device] * 100)
        await phone.request(1)

    assert [] == [answer.text for answer in answers if answer.status_code != 200]
    assert all(answers[0].json() == answer.json() for answer in answers)
    assert 1 == sum('"type":11' in text for text in phone.raw)


async def scribble(device: Device) -> None:
    for n in range(50):
        await device.set("n", n)


async def test_many_tokens_of_a_session_are_bounded(
    http: httpx.AsyncClient, redis_url: str
) -> None:
    """The oldest are dropped; the newest works."""
    session = await created(http)
    first = await token_for(http, session)
    for _ in range(256):
        last = await token_for(http, session)
    with client_of(redis_url) as client:
        kept = sum(1 for _ in client.scan_iter(f"{handoff_key(session)}:*", count=1000))
    codes = [
        (await http.get(f"/session/{session}/handoff/{token}")).status_code
        for token in (first, last)
    ]

    assert 256 == kept
    assert [404, 200] == codes


@pytest.mark.parametrize("kind", ["jti", "user_id", "device_id"])
async def test_a_pending_handoff_ends_with_the_token_that_made_it(
    redis_url: str, kind: str
) -> None:
    """Revoked on one node, it is worth nothing on the other as soon as that has heard of it.

    One that was made by another token goes on.
    """
    ann, service = f"ann-{new_session()}", bearer(mint("backend", Role.SERVICE))
    source, other = mint(ann, device="phone"), mint(ann, device="laptop")
    async with running_node(redis_url) as one, running_node(redis_url) as two:
        async with one.http() as http, two.http() as elsewhere:
            session = new_session()
            body = {"session_id": session, "user_id": ann, "state_data": {}}
            await http.post("/session/snapshot", json=body, headers=bearer(source))
            tokens = []
            for token, device in ((source, "phone"), (other, "laptop")):
                pair = {"source_device": device, "target_device": "tablet"}
                made = await http.post(
                    f"/session/{session}/handoff", json=pair, headers=bearer(token)
                )
                tokens.append(made.json()["token"])
            named = one.server.auth.authenticator.verify(source).jti
            revoked: dict[str, Any] = {"jti": {"jti": named}, "user_id": {"user_id": ann}}
            revoked["device_id"] = {"user_id": ann, "device_id": "phone"}
            done = await http.post("/auth/revoke", json=revoked[kind], headers=service)
            with trio.fail_after(10):
                while not elsewhere_knows(two, source):  # noqa: ASYNC110
                    await trio.sleep(0.01)
            answers = [
                await elsewhere.get(
                    f"/session/{session}/handoff/{token}",
                    headers={**service, **as_device("tablet")},
                )
                for token in tokens
            ]

    assert (kind == "device_id") == ("note" in done.json())
    assert (410, "handoff_expired") == (answers[0].status_code, answers[0].json()["code"])
    assert (410 if kind == "user_id" else 200) == answers[1].status_code


def elsewhere_knows(node: Node, token: str) -> bool:
    """Whether a node refuses the token as revoked."""
    try:
        node.server.auth.authenticator.verify(token)
    except SyncBridgeError as error:
        return error.code is ErrorCode.TOKEN_REVOKED
    return False
