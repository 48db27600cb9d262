"""Shared request handling of the simulated provider: key, faults, JSON."""

import ipaddress
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from syncbridge_tools.rtk_sim.faults import Faults, FaultSwitch
from syncbridge_tools.rtk_sim.reports import SimReports
from syncbridge_tools.rtk_sim.world import SimRoom, World, WorldError

MAX_BODY = 65_536
MAX_OBJECT = 4096

Body = dict[str, Any]
Route = Callable[[Request], Awaitable[Response]]
Refuse = Callable[[int, str, str], Response]


@dataclass
class Sim:
    """All parts of one simulated provider. `key`: the expected bearer token."""

    world: World
    switch: FaultSwitch
    reports: SimReports
    key: str
    allow_remote: bool = False

    def check_url(self, url: Any) -> str:
        """Check a webhook URL: http(s), and on this machine unless others are allowed."""
        try:
            parts = urlsplit(url) if isinstance(url, str) and len(url) <= 2048 else None
            host = parts.hostname if parts else None
        except ValueError:
            parts = host = None
        if parts is None or not host or parts.scheme not in ("http", "https"):
            raise WorldError(422, "invalid_request", "not a webhook URL")
        if not self.allow_remote and not _is_loopback(host):
            raise WorldError(422, "invalid_request", "only loopback URLs; see --allow-remote")
        return str(url)


@dataclass(frozen=True)
class SimRequest:
    """One request to the simulated provider."""

    sim: Sim
    request: Request
    body: Body
    faults: Faults
    now: float

    def room(self) -> SimRoom:
        """The room in the path."""
        return self.sim.world.find(self.request.path_params["id"])

    def number(self, name: str, default: int, most: int) -> int:
        """An integer in the query, from 1 to `most`."""
        text = self.request.query_params.get(name, "")
        plain = text.isascii() and text.isdigit() and len(text) < 10
        return max(1, min(int(text), most)) if plain else default


Answering = Callable[[SimRequest], Response]


def provider_route(sim: Sim, answer: Answering, refuse: Refuse, creates: bool = False) -> Route:
    """A route of the provider: faults first, then the key, then `answer`."""

    async def handle(request: Request) -> Response:
        faults = sim.switch.hit()
        await trio.sleep(faults.latency_ms / 1000)
        if faults.hang:
            await sim.switch.hang()
            return Response(status_code=504)
        if faults.rate_limit:
            response = refuse(429, "RATE_LIMITED", "too many requests")
            response.headers["retry-after"] = str(faults.rate_limit)
            return response
        if faults.status:
            return refuse(faults.status, "SERVICE_UNAVAILABLE", "in trouble")
        if request.headers.get("authorization") != f"Bearer {sim.key}":
            return refuse(401, "PERMISSION_DENIED", "bad key")
        try:
            response = answer(
                SimRequest(sim, request, await read_body(request), faults, time.time())
            )
        except WorldError as error:
            return refuse(error.status, error.code, str(error))
        if creates and faults.create_lost:
            await sim.switch.hang()
        return response

    return handle


async def read_body(request: Request) -> Body:
    """The JSON object of a request; an empty body is an empty object."""
    data = bytearray()
    async with aclosing(request.stream()) as chunks:
        async for chunk in chunks:
            data += chunk
            if len(data) > MAX_BODY:
                raise WorldError(413, "invalid_request", "too large")
    try:
        document = msgspec.json.decode(bytes(data)) if data else {}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise WorldError(400, "invalid_request", "not a JSON object")
    return document


def text_of(body: Body, name: str, default: str | None = None) -> str:
    """A text of 1 to 256 characters in a body."""
    value = body.get(name, default)
    if not isinstance(value, str) or not 0 < len(value) <= 256:
        raise WorldError(422, "invalid_request", f"{name} is needed")
    return value


def object_of(body: Body, name: str) -> Body:
    """An object in a body, at most `MAX_OBJECT` bytes of JSON; empty if not given."""
    value = body.get(name, {})
    if not isinstance(value, dict) or len(msgspec.json.encode(value)) > MAX_OBJECT:
        raise WorldError(422, "invalid_request", f"{name} is no object, or too large")
    return value


def reply(body: Body, status: int = 200) -> Response:
    """A JSON response."""
    return JSONResponse(body, status)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
