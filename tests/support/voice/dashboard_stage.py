"""An installation for tests of the dashboard: two nodes, voice, people, traffic, dead letters.

    python -m support.voice.dashboard_stage

prints one JSON line: where it is, and whose tokens open it. It ends when its standard input does.
"""

import json
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from support.redis_servers import RedisServer
from support.server_kit import bearer, mint
from support.voice import webhook_kit
from support.voice.voice_kit import VoiceRig, voice_mint, voice_server
from support.ws_client import Device
from syncbridge.events.delivery import Item
from syncbridge.events.kinds import SessionExpired
from syncbridge.events.outbox import encode, new_event
from syncbridge.identity import Role
from syncbridge.voice.recordings import Recorded

ANN = str(uuid.UUID(int=0xA22))
BOB = str(uuid.UUID(int=0xB0B))
CHANNEL = "lobby"
LETTERS = 3
BEAT, BEATS = 0.1, 50
HEARTBEAT = 1
STATE = {
    "document": {"title": "Quarterly plan", "tags": ["draft", "shared"], "pages": 12},
    "theme": "dark",
    "volume": 7,
    "zoom": 1.25,
}


@asynccontextmanager
async def people(rig: VoiceRig) -> AsyncIterator[tuple[Device, Device, Device]]:
    """Ann on three devices, of which one is gone again; Bob on one. Those that are there."""
    async with AsyncExitStack() as stack:

        async def device(node: int, user: str, name: str, session: str, **what: str) -> Device:
            one = await stack.enter_async_context(await Device.open(rig.nodes[node].port))
            await one.auth(voice_mint(user), name, session_id=session, **what)
            return one

        phone = await device(
            0, "ann", "phone", ANN, device_type="mobile", device_name="Ann's phone"
        )
        laptop = await device(
            1, "ann", "laptop", ANN, device_type="desktop", device_name="Ann's laptop"
        )
        tablet = await device(0, "ann", "tablet", ANN, device_type="tablet")
        bob = await device(1, "bob", "writer", BOB, device_type="desktop")
        for key, value in STATE.items():
            await phone.set(key, value)
        await laptop.set("cursor", {"line": 3, "column": 14})
        await tablet.close()
        await bob.set("mood", "calm")
        yield laptop, phone, bob


async def bury(rig: VoiceRig, session: str) -> None:
    """Have webhooks come that cannot be taken in."""
    for number in range(LETTERS):
        bad = {"type": "participant.left", "sessionId": session, "participantId": "a" * 70}
        body = json.dumps(bad | {"peerId": str(number)}).encode()
        headers = webhook_kit.signed("rtk", body)
        url = rig.url + webhook_kit.HOOK
        (await rig.http.post(url, content=body, headers=headers)).raise_for_status()


async def give_up(rig: VoiceRig) -> str:
    """An endpoint, some events for which were given up; its id."""
    asked = {"url": "https://hooks.example.com/ours", "kinds": ["session.*"]}
    headers = bearer(mint("root", Role.ADMIN))
    answer = await rig.http.post(rig.url + "/admin/webhooks", json=asked, headers=headers)
    made: str = answer.raise_for_status().json()["id"]
    for number in range(LETTERS + 1):
        event = new_event(f"given-up-{number}", "session.expired", 0, SessionExpired())
        item = Item("s" + ANN, event_id=event.id, text=encode(event))
        await rig.nodes[0].server.events.endpoints.bury(made, item, "status 500")
    return made


async def record(rig: VoiceRig, session: str) -> None:
    """A recording and a transcript of the call."""
    voice = rig.nodes[0].server.voice
    assert voice is not None
    now = round(time.time() * 1000)
    made = Recorded("1", session, now, "https://records.example.com/1.mp4", 120.0)
    await voice.recordings.add(CHANNEL, made)
    await voice.recordings.add(CHANNEL, Recorded("2", session, now, kind="transcript"))
    await voice.recordings.keep_text(CHANNEL, "2", b"ann: hello")


async def traffic(laptop: Device, *others: Device) -> None:
    """Keep devices connected, and one of them counting, for ever."""
    number = 0
    while True:
        number += 1
        await laptop.set("count", number)
        if number % BEATS == 0:
            for device in others:
                await device.send(HEARTBEAT, {})
        await trio.sleep(BEAT)


async def stage() -> None:
    """Set everything up, print its address, and run until stopped."""
    folder = Path(tempfile.mkdtemp(prefix="syncbridge-stage-"))
    audit = folder / "audit.log"
    with RedisServer() as redis:
        values = {"audit_log": str(audit), "admin_update": 1.0, "key_writers": True}
        async with (
            voice_server(redis.url, nodes=2, **values) as rig,
            people(rig) as devices,
            trio.open_nursery() as nursery,
        ):
            session = await rig.join("ann", CHANNEL)
            await rig.join("bob", CHANNEL)
            await bury(rig, session)
            await record(rig, session)
            endpoint = await give_up(rig)
            nursery.start_soon(traffic, *devices)
            told = {
                "url": rig.url,
                "other": rig.nodes[1].url,
                "admin": mint("root", Role.ADMIN),
                "viewer": mint("eve", Role.VIEWER),
                "session": ANN,
                "bob": BOB,
                "channel": CHANNEL,
                "endpoint": endpoint,
                "audit": str(audit),
            }
            sys.stdout.write(json.dumps(told) + "\n")
            sys.stdout.flush()
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(stage)
