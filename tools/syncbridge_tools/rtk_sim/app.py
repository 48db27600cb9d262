"""The simulated provider as an ASGI application, its server and its control API.

The control API `/sim/*` needs no key, because the server listens on loopback by default.
"""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve as hypercorn_serve
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from syncbridge.voice.provider.signatures import secret_bytes
from syncbridge_tools.rtk_sim import cloudflare_dialect, media, spec_dialect
from syncbridge_tools.rtk_sim.faults import Faults, FaultSwitch
from syncbridge_tools.rtk_sim.handling import Body, Sim, read_body, reply, text_of
from syncbridge_tools.rtk_sim.reports import RsaSigner, SimReports
from syncbridge_tools.rtk_sim.world import Happening, SimRoom, World, WorldError

Steering = Callable[[Sim, Body], Body]
Move = Callable[[World, SimRoom, str, float], list[Happening]]
MOVES: dict[str, Move] = {
    "join": World.join,
    "leave": World.leave,
    "speak": partial(World.speak, speaking=True),
    "fall_silent": partial(World.speak, speaking=False),
}


def new_sim(
    key: str = "", secret: str = "", allow_remote: bool = False, signer: RsaSigner | None = None
) -> Sim:
    """Create an empty provider. Must be called within Trio.

    Args:
        key: the expected bearer token. secret: of webhooks; both are generated if empty.
        signer: RealTimeKit's key pair; generated if None.
    """
    world, switch = World(), FaultSwitch()
    hook_key = secret_bytes(secret or secrets.token_urlsafe(32))
    reports = SimReports(world, switch, hook_key, signer or RsaSigner())
    return Sim(world, switch, reports, key or secrets.token_urlsafe(24), allow_remote)


def build_app(sim: Sim) -> Starlette:
    """Both dialects, `/sim/*`, and `/media`."""
    steering = (
        ("POST", "/sim/faults", set_faults),
        ("POST", "/sim/participants", move_participant),
        ("POST", "/sim/reset", reset),
        ("GET", "/sim/state", show_state),
    )
    own = [Route(path, _steering(sim, act), methods=[method]) for method, path, act in steering]
    connections = WebSocketRoute("/media", partial(media.connect, sim))
    return Starlette(
        routes=[connections, *own, *spec_dialect.routes(sim), *cloudflare_dialect.routes(sim)]
    )


KEEP_ALIVE_SECONDS = 75.0
"""A client whose request crosses the close of an idle connection gets no answer."""


@asynccontextmanager
async def running(sim: Sim, bind: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """Serve within the block; yields the base URL."""
    config = Config()
    config.bind = [bind]
    config.errorlog = config.accesslog = None
    config.graceful_timeout = 0.1
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    stop = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sim.reports.run)
        app = cast("Any", build_app(sim))
        start = partial(
            hypercorn_serve, app, config, shutdown_trigger=cast("Any", stop.wait), mode="asgi"
        )
        urls = await nursery.start(start)
        try:
            yield urls[0]
        finally:
            sim.switch.set(Faults())
            stop.set()
            nursery.cancel_scope.cancel()


def set_faults(sim: Sim, body: Body) -> Body:
    """Replace the faults, and send the withheld webhooks."""
    try:
        sim.switch.set(msgspec.convert(body, Faults))
    except msgspec.ValidationError as error:
        raise WorldError(422, "invalid_request", str(error)) from None
    sim.reports.let_go()
    return cast("Body", msgspec.to_builtins(sim.switch.now))


def move_participant(sim: Sim, body: Body) -> Body:
    """Let a user do something: `{session, user, action}`, an action of `MOVES`."""
    room = sim.world.find(text_of(body, "session"))
    user_id, action = text_of(body, "user"), text_of(body, "action")
    if action not in MOVES:
        raise WorldError(422, "invalid_request", "action is one of " + ", ".join(MOVES))
    sim.reports.tell(MOVES[action](sim.world, room, user_id, time.time()))
    return {"participants": [peer.user_id for peer in room.present]}


def reset(sim: Sim, body: Body) -> Body:
    """Reset all state and faults."""
    sim.world.rooms.clear()
    sim.world.hooks.clear()
    sim.world.presets.clear()
    sim.world.created = 0
    sim.reports.reset()
    sim.switch.set(Faults())
    return {}


def show_state(sim: Sim, body: Body) -> Body:
    """The state, the faults, and the outcomes of webhooks."""
    return {
        **sim.world.truth(),
        "faults": msgspec.to_builtins(sim.switch.now),
        "deliveries": list(sim.reports.log),
        "dropped": sim.reports.dropped,
    }


def _steering(sim: Sim, act: Steering) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        try:
            return reply(act(sim, await read_body(request)))
        except WorldError as error:
            return spec_dialect.refuse(error.status, error.code, str(error))

    return handle
