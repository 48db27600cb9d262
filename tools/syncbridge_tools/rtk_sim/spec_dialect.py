"""The specification's REST API, under `/`: sessions, tokens, state, recordings, webhooks."""

import uuid
from collections.abc import Iterator

import jwt
from starlette.responses import Response
from starlette.routing import Route

from syncbridge_tools.rtk_sim.handling import (
    Body,
    Sim,
    SimRequest,
    object_of,
    provider_route,
    reply,
    text_of,
)
from syncbridge_tools.rtk_sim.reports import ALL_ELSE
from syncbridge_tools.rtk_sim.world import SimRoom, WorldError

TOKEN_SECONDS = 3600
MAX_TOKEN_SECONDS = 86_400
MAX_PARTICIPANTS = 1000


def routes(sim: Sim) -> Iterator[Route]:
    """All routes of this dialect."""
    table = (
        ("POST", "/sessions", create),
        ("GET", "/sessions", list_active),
        ("POST", "/sessions/{id}/tokens", issue_token),
        ("POST", "/sessions/{id}/end", end),
        ("GET", "/sessions/{id}/state", state),
        ("GET", "/sessions/{id}/metrics", metrics),
        ("POST", "/sessions/{id}/recordings", record),
        ("DELETE", "/sessions/{id}/participants/{user}", kick),
        ("POST", "/webhooks", register),
    )
    for method, path, answer in table:
        handler = provider_route(sim, answer, refuse, creates=answer is create)
        yield Route(path, handler, methods=[method])


def refuse(status: int, code: str, message: str) -> Response:
    """An error of this dialect."""
    return reply({"error": {"code": code, "message": message}}, status)


def create(call: SimRequest) -> Response:
    """Create a session; the same id again returns the first session unchanged."""
    room_id = text_of(call.body, "sessionId")
    most = call.body.get("maxParticipants", 100)
    if not isinstance(most, int) or not 1 <= most <= MAX_PARTICIPANTS:
        raise WorldError(422, "invalid_request", "maxParticipants is out of range")
    hooks = call.body.get("webhooks", {})
    if not isinstance(hooks, dict) or len(hooks) > 8:
        raise WorldError(422, "invalid_request", "webhooks is not an object")
    checked = {str(name): call.sim.check_url(url) for name, url in hooks.items()}
    if "webhookUrl" in call.body:
        checked[ALL_ELSE] = call.sim.check_url(call.body["webhookUrl"])
    features, metadata = (object_of(call.body, name) for name in ("features", "metadata"))
    room = call.sim.world.create(room_id, room_id, call.now, most)
    if room.ended:
        raise WorldError(409, "invalid_request", "the session has ended")
    room.hooks = room.hooks or checked
    room.features, room.metadata = room.features or features, room.metadata or metadata
    return reply({"id": room.id, "sessionId": room.id, "createdAt": room.created_at}, 201)


def list_active(call: SimRequest) -> Response:
    """Sessions with participants, in pages."""
    limit = call.number("limit", 100, 1000)
    start = call.number("cursor", 1, 1_000_000) - 1
    rooms = call.sim.world.occupied()
    page = [{"sessionId": r.id, "participantCount": len(r.present)} for r in rooms]
    page = page[start : start + limit]
    body: Body = {"sessions": page, "count": len(page)}
    if start + limit < len(rooms):
        body["nextCursor"] = str(start + limit + 1)
    if call.faults.lists == "empty":
        body = {"sessions": [], "count": 0}
    if call.faults.lists == "partial":
        body["sessions"] = page[: len(page) // 2]
    return reply(body)


def issue_token(call: SimRequest) -> Response:
    """Issue a token, signed with a random key. Any issued token admits its holder."""
    room, user_id = call.room(), text_of(call.body, "participantId")
    seconds = call.body.get("expiresIn", TOKEN_SECONDS)
    if not isinstance(seconds, int) or not 1 <= seconds <= MAX_TOKEN_SECONDS:
        raise WorldError(422, "invalid_request", "expiresIn is out of range")
    asked = {name: object_of(call.body, name) for name in ("permissions", "metadata")}
    call.sim.world.enrol(room, user_id)
    room.tokens[user_id] = {**asked, "expiresIn": seconds}
    return reply({"token": _token(call, room, user_id, seconds), "expiresIn": seconds}, 201)


def _token(call: SimRequest, room: SimRoom, user_id: str, seconds: int) -> str:
    claims = {
        "sub": user_id,
        "room": room.id,
        "permissions": room.tokens[user_id]["permissions"],
        "exp": int(call.now) + seconds,
    }
    return jwt.encode(claims, uuid.uuid4().hex, algorithm="HS256")


def end(call: SimRequest) -> Response:
    """End a session."""
    call.sim.reports.tell(call.sim.world.end(call.room(), call.now))
    return reply({"ended": True})


def state(call: SimRequest) -> Response:
    """The users in a session, each once, whatever the number of connections."""
    users = list(dict.fromkeys(peer.user_id for peer in call.room().present))
    body: Body = {"participantCount": len(users), "participants": [{"id": u} for u in users]}
    if call.faults.lists == "empty":
        body = {"participantCount": 0, "participants": []}
    if call.faults.lists == "partial":
        body["participants"] = body["participants"][: len(users) // 2]
    return reply(body)


def metrics(call: SimRequest) -> Response:
    """The metrics of a healthy call."""
    people = len(call.room().present)
    figures = {"packetsLost": 0, "jitter": 2.5, "latency": 40.0, "bandwidth": 64_000.0 * people}
    return reply(figures)


def record(call: SimRequest) -> Response:
    """Start to record."""
    return reply({"recordingId": call.sim.world.record(call.room()), "status": "RECORDING"}, 201)


def kick(call: SimRequest) -> Response:
    """Remove a user."""
    happened = call.sim.world.leave(call.room(), call.request.path_params["user"], call.now)
    if not happened:
        raise WorldError(404, "invalid_request", "no such participant")
    call.sim.reports.tell(happened)
    return reply({"kicked": True})


def register(call: SimRequest) -> Response:
    """Register a URL for all events."""
    url = call.sim.check_url(call.body.get("url"))
    return reply({"id": call.sim.world.register(url, "spec").id, "url": url}, 201)
