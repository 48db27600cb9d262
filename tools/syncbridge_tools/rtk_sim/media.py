"""Media connections of the simulated provider: `GET /media`, one WebSocket for each.

The first message is a participant's token, the first answer `{"connectionId"}`. Then the
participant is in the room and sends `{"speaking": true}` or `false`. The end of the WebSocket ends
the connection. No audio is carried, only the speaking state.
"""

import time
from functools import partial

import jwt
import msgspec
import trio
from starlette.websockets import WebSocket, WebSocketDisconnect

from syncbridge_tools.rtk_sim.handling import Sim
from syncbridge_tools.rtk_sim.world import Happening, Peer, SimRoom, WorldError

TOKEN_SECONDS = 5.0
LOOK_SECONDS = 0.25
"""Interval of checks whether a participant was removed."""
WEBHOOK_SECONDS = 0.2
"""As with real providers, a participant knows of the connection before a webhook tells of it."""
REFUSED, REMOVED = 4001, 4000


class Said(msgspec.Struct):
    """A message of a participant."""

    speaking: bool


async def connect(sim: Sim, websocket: WebSocket) -> None:
    """Serve one connection."""
    await websocket.accept()
    entered = await _enter(sim, websocket)
    if entered is None:
        return
    room, peer, happened = entered
    try:
        await websocket.send_json({"connectionId": peer.id})
        await trio.sleep(WEBHOOK_SECONDS)
        sim.reports.tell(happened)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_see_off, peer, websocket)
            await _listen(sim, room, peer, websocket)
            nursery.cancel_scope.cancel()
    finally:
        sim.reports.tell(sim.world.part(room, peer, time.time()))


async def _enter(sim: Sim, websocket: WebSocket) -> tuple[SimRoom, Peer, list[Happening]] | None:
    try:
        with trio.fail_after(TOKEN_SECONDS):
            token = await websocket.receive_text()
        claims = jwt.decode(token, options={"verify_signature": False})
        room = sim.world.find(str(claims.get("room")))
        happened = sim.world.join(room, str(claims.get("sub")), time.time())
    except (trio.TooSlowError, jwt.PyJWTError, WorldError, KeyError) as error:
        await websocket.close(REFUSED, str(error)[:120] or "no token")
        return None
    except WebSocketDisconnect:
        return None
    peer = happened[-1].peer
    assert peer is not None
    return room, peer, happened


async def _listen(sim: Sim, room: SimRoom, peer: Peer, websocket: WebSocket) -> None:
    while True:
        try:
            said = msgspec.json.decode(await websocket.receive_text(), type=Said)
        except (WebSocketDisconnect, RuntimeError):
            return None
        except (msgspec.MsgspecError, KeyError):
            return await websocket.close(REFUSED, "expected: a speaking, true or false")
        speak = partial(sim.world.speak, room, peer.user_id, time.time())
        sim.reports.tell(speak(speaking=said.speaking))


async def _see_off(peer: Peer, websocket: WebSocket) -> None:
    """Close the connection after its participant was removed or the room ended."""
    while peer.left_at is None:  # noqa: ASYNC110, the world is not asynchronous
        await trio.sleep(LOOK_SECONDS)
    await websocket.close(REMOVED, "removed")
