"""A session is handed over while its device is in a call: the call goes along, and nobody drops
out.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import Node, bearer, new_session
from support.voice import sim_kit
from support.voice.calls_kit import join, people, states
from support.voice.voice_kit import WADDLE, VoiceRig, voice_mint, voice_server
from support.ws_client import Device
from syncbridge.identity import Role

HANDOFF_LEFT, UPDATE, ERROR = 11, 5, 6


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A Redis of its own: due channels are everybody's."""
    with RedisServer() as server:
        yield server.url


@pytest.fixture
async def rig(redis_url: str) -> AsyncIterator[VoiceRig]:
    async with voice_server(redis_url, nodes=2) as running:
        yield running


@asynccontextmanager
async def device_in(node: Node, session: str, name: str) -> AsyncIterator[Device]:
    """A device of ann in a session."""
    async with await Device.open(node.port) as device:
        await device.auth(voice_mint("ann", waddle=WADDLE), name, session_id=session)
        yield device


async def handoff_token(rig: VoiceRig, session: str) -> str:
    body = {"source_device": "phone", "target_device": "tablet"}
    ann = voice_mint("ann", waddle=WADDLE)
    answer = await rig.ask("POST", f"/session/{session}/handoff", ann, body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["token"])


async def redeem(
    rig: VoiceRig,
    session: str,
    token: str,
    node: int = 1,
    access: str = "",
    device: str = "tablet",
) -> httpx.Response:
    access = access or voice_mint("ann", waddle=WADDLE)
    answer: httpx.Response = await rig.http.get(
        f"{rig.nodes[node].url}/session/{session}/handoff/{token}",
        headers=bearer(access) | {"X-Device-ID": device},
    )
    return answer


async def in_the_call(rig: VoiceRig, phone: Device) -> dict[str, Any]:
    """The phone gets a token, connects at the provider, and reports."""
    await phone.set("a", 1)
    issued = await rig.token("ann", "c")
    await rig.sim.move(issued["sessionId"], "ann")
    await states(phone, "connected")
    return await join(phone, "c")


async def test_the_call_goes_along_with_the_session(rig: VoiceRig) -> None:
    """The target gets a token; the source holds the call until the target is in the media."""
    one, two = rig.nodes
    session = new_session()
    async with device_in(one, session, "phone") as phone:
        state = await in_the_call(rig, phone)
        answer = await redeem(rig, session, await handoff_token(rig, session))
        voice = answer.json()["voice"]
        assert ("c", state["sessionId"]) == (voice["channelId"], voice["sessionId"])
        assert voice["token"]
        await states(phone, "moving")
        async with device_in(two, session, "tablet") as tablet:
            assert {"ann"} == people(tablet.welcome["voice"][0])
            assert "moving" == tablet.welcome["voice"][0]["participants"][0]["state"]
            await rig.sim.move(voice["sessionId"], "ann")
            (held, released) = await states(phone, "held", "released")
            assert ("tablet", "phone") == (held["deviceId"], released["deviceId"])
            assert "handoff" == released["reason"]
            assert "tablet" == (await states(tablet, "held"))[0]["deviceId"]
            assert (1.0, 1.0, 0.0) == tuple(counted(rig, s) for s in ("begun", "moved", "failed"))
            listed = {d["device_id"]: d.get("in_call") for d in await devices(rig, session)}
            assert {"phone": None, "tablet": "c"} == listed
            assert not any('"disconnected"' in message for message in phone.raw)


def counted(rig: VoiceRig, step: str) -> float:
    """A step of handovers, as all nodes have counted it."""
    name = "syncbridge_voice_handovers_total"
    found = [node.server.registry.get_sample_value(name, {"step": step}) for node in rig.nodes]
    return sum(value or 0.0 for value in found)


async def devices(rig: VoiceRig, session: str) -> list[dict[str, Any]]:
    ann = voice_mint("ann", waddle=WADDLE)
    found: list[dict[str, Any]] = (await rig.ask("GET", f"/session/{session}/devices", ann)).json()[
        "devices"
    ]
    return found


async def test_a_report_of_the_target_moves_the_call(rig: VoiceRig) -> None:
    """voice_join of the new device is as good as the provider's word; the answer can be re-read."""
    one, two = rig.nodes
    session = new_session()
    async with device_in(one, session, "phone") as phone:
        await in_the_call(rig, phone)
        token = await handoff_token(rig, session)
        first = await redeem(rig, session, token)
        second = await redeem(rig, session, token)
        assert (200, 200) == (first.status_code, second.status_code)
        async with device_in(two, session, "tablet") as tablet:
            state = await join(tablet, "c")
            assert "tablet" == state["participants"][0]["deviceId"]
            await states(phone, "released")


async def test_a_provider_that_fails_takes_nothing_away(rig: VoiceRig) -> None:
    """The session is handed over, the call stays with the source, and the answer says why."""
    one, _ = rig.nodes
    session = new_session()
    async with device_in(one, session, "phone") as phone:
        await in_the_call(rig, phone)
        token = await handoff_token(rig, session)
        await rig.sim.faults(status=503)
        answer = await redeem(rig, session, token)
        await rig.sim.faults()

        assert (200, True) == (answer.status_code, answer.json()["valid"])
        assert "SERVICE_UNAVAILABLE" == answer.json()["voice"]["error"]
        assert "token" not in answer.json()["voice"]
        assert "phone" == (await rig.channel("c")).record.participants["ann"].device_id
        again = await redeem(rig, session, token)
        assert again.json()["voice"]["token"]


async def test_a_session_without_a_call_is_handed_over_as_ever(rig: VoiceRig) -> None:
    """There is no `voice` in the answer."""
    session = new_session()
    async with device_in(rig.nodes[0], session, "phone") as phone:
        await phone.set("a", 1)
        answer = await redeem(rig, session, await handoff_token(rig, session))

        assert 200 == answer.status_code
        assert "voice" not in answer.json()


async def test_without_a_grant_the_call_stays(rig: VoiceRig) -> None:
    """Who may not join the channel any more gets the session, but no way into the call."""
    session = new_session()
    async with device_in(rig.nodes[0], session, "phone") as phone:
        await in_the_call(rig, phone)
        token = await handoff_token(rig, session)
        elsewhere = voice_mint("ann", waddle=WADDLE, channel="other")
        answer = await redeem(rig, session, token, access=elsewhere)

        assert (200, True) == (answer.status_code, answer.json()["valid"])
        whose = {"channelId": "c", "waddleId": WADDLE}
        assert whose | {"error": "forbidden"} == answer.json()["voice"]
        assert "" == (await rig.channel("c")).record.participants["ann"].moving_to
        assert (0.0, 1.0) == (counted(rig, "begun"), counted(rig, "failed"))


@pytest.mark.parametrize(
    ("role", "granted"),
    [(Role.USER, ()), (Role.USER, ("speak", "record")), (Role.SERVICE, ()), (Role.SERVICE, ("*",))],
)
async def test_the_new_token_allows_what_the_old_one_did(
    redis_url: str, role: Role, granted: tuple[str, ...]
) -> None:
    """Whoever asks: a listener stays one, and what was granted beside speaking is not lost."""
    async with voice_server(redis_url, kind="rtk-minted") as rig:
        session, may = new_session(), {"speak", "*"} & {*granted}
        ann = voice_mint("ann", waddle=WADDLE, permissions=granted)
        async with await Device.open(rig.node.port) as phone:
            await phone.auth(ann, "phone", session_id=session)
            await phone.set("a", 1)
            body = {"waddleId": WADDLE, "channelId": "c"}
            issued = (await rig.ask("POST", "/api/voice/token", ann, body)).json()
            await rig.sim.move(issued["sessionId"], "ann")
            await states(phone, "connected")
            await join(phone, "c")
            token = await handoff_token(rig, session)
            asking = ann if role is Role.USER else voice_mint("gateway", role)
            answer = await redeem(rig, session, token, node=0, access=asking)

        claims = [
            jwt.decode(text, sim_kit.SECRET, algorithms=["HS256"])["permissions"]
            for text in (issued["token"], answer.json()["voice"]["token"])
        ]
        assert claims[0] == claims[1]
        assert bool(may) == claims[1]["canPublish"]
        assert bool({"record", "*"} & {*granted}) == claims[1]["canRecord"]


async def test_a_source_that_reconnects_keeps_the_call(rig: VoiceRig) -> None:
    """Its new connection shows beside the old one, as a target's would: it says whose that is."""
    one, two = rig.nodes
    session = new_session()
    async with device_in(one, session, "phone") as phone:
        state = await in_the_call(rig, phone)
        await redeem(rig, session, await handoff_token(rig, session))
        await rig.sim.move(state["sessionId"], "ann")
        await states(phone, "held", "released")
        channel = await rig.channel("c")
        assert channel.call is not None
        new = channel.call.connections("ann")[-1]
        await phone.send("voice_join", {"channelId": "c", "connectionId": new})
        (held, moving) = await states(phone, "held", "moving")
        assert ("phone", "tablet") == (held["deviceId"], moving["deviceId"])
        async with device_in(two, session, "tablet") as tablet:
            await join(tablet, "c")
            await states(phone, "held", "released")


async def test_a_race_for_the_session_is_one_for_the_call(rig: VoiceRig) -> None:
    """Two devices redeem one token at once, on two nodes: the call goes to one of them alone."""
    session = new_session()
    async with device_in(rig.nodes[0], session, "phone") as phone:
        await in_the_call(rig, phone)
        token = await handoff_token(rig, session)
        answers: dict[str, list[httpx.Response]] = {"tablet": [], "watch": []}

        async def ask(device: str, node: int) -> None:
            answers[device].append(await redeem(rig, session, token, node, device=device))

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(ask, ("tablet", "watch")[number % 2], number // 2 % 2)

        assert {200} == {answer.status_code for answer in answers["tablet"]}
        assert all(answer.json()["voice"]["token"] for answer in answers["tablet"])
        assert all(400 <= answer.status_code < 500 for answer in answers["watch"])
        assert not any("voice" in answer.json() for answer in answers["watch"])
        ann = (await rig.channel("c")).record.participants["ann"]
        assert ("phone", "tablet") == (ann.device_id, ann.moving_to)
