"""The part of Cloudflare RealTimeKit's API v4 that a server needs, under `/client/v4`.

The account and application in the path are ignored. There are no presets until one is created.
"""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from syncbridge_tools.rtk_sim.faults import ErrorForm
from syncbridge_tools.rtk_sim.handling import Body, Sim, SimRequest, provider_route, reply, text_of
from syncbridge_tools.rtk_sim.reports import CLOUDFLARE_KINDS, iso
from syncbridge_tools.rtk_sim.world import Hook, Past, Peer, Preset, SimRoom, WorldError

BASE = "/client/v4/accounts/{account}/realtime/kit/{app}"
KEY_PATH = "/.well-known/webhooks.json"
MAX_PARTICIPANTS = 1000
MAX_PRESETS = 64
FEATURES = ("record_on_start", "transcribe_on_end")


def routes(sim: Sim) -> Iterator[Route]:
    """All routes of this dialect."""
    table = (
        ("POST", "/meetings", create),
        ("GET", "/meetings", list_meetings),
        ("GET", "/meetings/{id}", show_meeting),
        ("PATCH", "/meetings/{id}", patch_meeting),
        ("POST", "/meetings/{id}/participants", add_participant),
        ("GET", "/meetings/{id}/participants", list_participants),
        ("PATCH", "/meetings/{id}/participants/{participant}", patch_participant),
        ("DELETE", "/meetings/{id}/participants/{participant}", delete_participant),
        ("GET", "/meetings/{id}/active-session", active_session),
        ("POST", "/meetings/{id}/active-session/kick", kick),
        ("POST", "/meetings/{id}/active-session/kick-all", kick_all),
        ("GET", "/sessions", list_sessions),
        ("GET", "/sessions/{session}/participants", session_participants),
        ("GET", "/presets", list_presets),
        ("POST", "/presets", make_preset),
        ("POST", "/recordings", record),
        ("GET", "/recordings/active-recording/{id}", active_recording),
        ("PUT", "/recordings/{recording}", change_recording),
        ("POST", "/webhooks", register),
        ("GET", "/webhooks", list_webhooks),
        ("PATCH", "/webhooks/{hook}", patch_webhook),
    )

    def refusing(status: int, code: str, message: str) -> Response:
        return refuse(status, code, message, sim.switch.now.error_form)

    for method, path, answer in table:
        handler = provider_route(sim, answer, refusing, creates=answer is create)
        yield Route(BASE + path, handler, methods=[method])
    yield Route(KEY_PATH, _published_key(sim), methods=["GET"])


def refuse(status: int, code: str, message: str, form: ErrorForm = "error") -> Response:
    """An error in the form of the backend, or of its gateway for 401 and 429."""
    if form == "text":
        return reply({"success": False, "error": message}, status)
    if form == "message":
        return reply({"message": message}, status)
    if form == "errors" or status in (401, 429):
        errors = [{"code": 10_000, "message": message}]
        return reply({"success": False, "errors": errors, "messages": [], "result": None}, status)
    return reply({"success": False, "error": {"code": status, "message": message}}, status)


def create(call: SimRequest) -> Response:
    """Create a meeting with each request, without idempotency keys."""
    title = text_of(call.body, "title")
    room = call.sim.world.create(str(uuid.uuid4()), title, call.now, MAX_PARTICIPANTS)
    room.features = {name: call.body.get(name, False) is True for name in FEATURES}
    return _done(_meeting(room), 201)


def list_meetings(call: SimRequest) -> Response:
    """Meetings whose id or title contains `search`."""
    wanted = call.request.query_params.get("search", "")
    status = call.request.query_params.get("status")
    found = [
        _meeting(room)
        for room in call.sim.world.rooms.values()
        if wanted in room.title or wanted == room.id
    ]
    page, paging = _page(call, [m for m in found if status in (None, m["status"])])
    return reply({"success": True, "data": page, "paging": paging})


def show_meeting(call: SimRequest) -> Response:
    """A meeting."""
    return _done(_meeting(call.room()))


def patch_meeting(call: SimRequest) -> Response:
    """Close a meeting. Its participants stay."""
    room = call.room()
    room.ended = call.body.get("status") == "INACTIVE"
    return _done(_meeting(room))


def add_participant(call: SimRequest) -> Response:
    """Enrol a user. A second enrolment is a conflict."""
    room, user_id = call.room(), text_of(call.body, "custom_participant_id")
    preset = _preset(call, text_of(call.body, "preset_name"))
    if user_id in room.enrolled:
        raise WorldError(call.faults.duplicate, "invalid_request", "participant exists")
    if len(room.enrolled) >= room.max_participants:
        raise WorldError(call.faults.full, "session_full", "the session is full")
    _enrol(call, room, user_id, preset)
    return _done({**_enrolled(room, user_id), "token": _token()}, 201)


def list_participants(call: SimRequest) -> Response:
    """The enrolled users."""
    room = call.room()
    page, paging = _page(call, [_enrolled(room, user_id) for user_id in room.enrolled])
    return reply({"success": True, "data": page, "paging": paging})


def patch_participant(call: SimRequest) -> Response:
    """Change the preset and issue a new token."""
    room, wanted = call.room(), call.request.path_params["participant"]
    for user_id, (known, preset) in room.enrolled.items():
        if known == wanted:
            preset = _preset(call, text_of(call.body, "preset_name", preset))
            _enrol(call, room, user_id, preset)
            return _done({**_enrolled(room, user_id), "token": _token()})
    raise WorldError(404, "invalid_request", "no such participant")


def delete_participant(call: SimRequest) -> Response:
    """Delete an enrolment, which invalidates its tokens."""
    room, wanted = call.room(), call.request.path_params["participant"]
    for user_id, (known, _) in list(room.enrolled.items()):
        if known == wanted:
            del room.enrolled[user_id], room.tokens[user_id]
            return _done({"custom_participant_id": user_id})
    raise WorldError(404, "invalid_request", "no such participant")


def list_presets(call: SimRequest) -> Response:
    """All presets, without their permissions."""
    presets = call.sim.world.presets.items()
    page, paging = _page(call, [{"id": preset.id, "name": name} for name, preset in presets])
    return reply({"success": True, "data": page, "paging": paging})


def make_preset(call: SimRequest) -> Response:
    """Create a preset. All parts are required."""
    name, world = text_of(call.body, "name"), call.sim.world
    if not all(isinstance(call.body.get(part), dict) for part in ("config", "permissions", "ui")):
        raise WorldError(400, "invalid_request", "config, permissions and ui are needed")
    if name in world.presets or len(world.presets) >= MAX_PRESETS:
        raise WorldError(409, "invalid_request", "preset exists, or there are too many")
    preset = world.presets[name] = Preset(str(uuid.uuid4()), call.body["permissions"])
    return _done({"id": preset.id, "name": name}, 201)


def _preset(call: SimRequest, name: str) -> str:
    if name not in call.sim.world.presets:
        status = call.faults.no_preset
        raise WorldError(status, "invalid_request", f"No preset found with name {name}")
    return name


def _enrol(call: SimRequest, room: SimRoom, user_id: str, preset: str) -> None:
    call.sim.world.enrol(room, user_id, preset)
    room.tokens[user_id] = {"preset": preset}


def active_session(call: SimRequest) -> Response:
    """The occupancy of a meeting."""
    live = _session(_occupied(call))
    if call.faults.lists == "empty":
        live["live_participants"] = 0
    return _done(live)


def kick(call: SimRequest) -> Response:
    """Remove users with all of their peers."""
    room, users = _occupied(call), call.body.get("custom_participant_ids")
    if not isinstance(users, list) or not isinstance(call.body.get("participant_ids"), list):
        raise WorldError(400, "invalid_request", "both lists are needed")
    happened = [h for user in users for h in call.sim.world.leave(room, str(user), call.now)]
    if not happened:
        raise WorldError(404, "invalid_request", "No user found")
    call.sim.reports.tell(happened)
    return _done({"action": "kick", "participants": []})


def kick_all(call: SimRequest) -> Response:
    """Remove everybody."""
    room = _occupied(call)
    people = len(room.present)
    call.sim.reports.tell(call.sim.world.clear(room, call.now))
    return _done({"action": "kick-all", "kicked_participants_count": people})


def list_sessions(call: SimRequest) -> Response:
    """Active occupancies; with `associated_id`, also ended ones."""
    wanted = call.request.query_params.get("associated_id", "")
    rooms = [] if call.faults.lists == "empty" else list(call.sim.world.rooms.values())
    ours = [room for room in rooms if wanted in ("", room.id)]
    listed = [_session(room) for room in ours if room.occupancy]
    if wanted:
        listed += [_ended(room, past) for room in ours for past in reversed(room.past)]
    page, paging = _page(call, listed)
    if call.faults.lists == "partial":
        page = page[: len(page) // 2]
    return reply({"success": True, "data": {"sessions": page}, "paging": paging})


def session_participants(call: SimRequest) -> Response:
    """All present and past peers of an occupancy."""
    wanted = call.request.path_params["session"]
    found = next(((room, peers) for room, peers in _occupancies(call, wanted)), None)
    if found is None:
        raise WorldError(404, "SESSION_NOT_FOUND", "no such session")
    room, peers = found
    peers = [] if call.faults.lists == "empty" else peers
    page, paging = _page(call, [_peer(room, peer) for peer in peers])
    if call.faults.lists == "partial":
        page = page[: len(page) // 2]
    return reply({"success": True, "data": {"participants": page, "paging": paging}})


def record(call: SimRequest) -> Response:
    """Start to record."""
    room = call.sim.world.find(text_of(call.body, "meeting_id"))
    recording = call.sim.world.record(room)
    room.storage = call.body.get("storage_config", {})
    return _done({"id": recording, "status": "INVOKED", "session_id": room.occupancy or None}, 201)


def active_recording(call: SimRequest) -> Response:
    """The active recording."""
    recording = call.room().recording
    if not recording:
        raise WorldError(404, "invalid_request", "No active recording")
    return _done({"id": recording, "status": "RECORDING"})


def change_recording(call: SimRequest) -> Response:
    """Stop a recording."""
    wanted = call.request.path_params["recording"]
    room = next((r for r in call.sim.world.rooms.values() if r.recording == wanted), None)
    if room is None or call.body.get("action") != "stop":
        raise WorldError(404, "invalid_request", "No active recording")
    call.sim.reports.tell(call.sim.world.stop_recording(room, call.now))
    return _done({"id": wanted, "status": "UPLOADED"})


def register(call: SimRequest) -> Response:
    """Register a webhook URL; a registered URL is a conflict."""
    url = call.sim.check_url(call.body.get("url"))
    known = [h for h in call.sim.world.hooks.values() if h.url == url]
    if any(hook.dialect == "cloudflare" for hook in known):
        raise WorldError(409, "invalid_request", "URL is registered")
    events, enabled = _hook_events(call.body), call.body.get("enabled", True) is True
    return _done(_hook(call.sim.world.register(url, "cloudflare", events, enabled)), 201)


def list_webhooks(call: SimRequest) -> Response:
    """All registrations."""
    hooks = [h for h in call.sim.world.hooks.values() if h.dialect == "cloudflare"]
    shown = [] if call.faults.lists == "empty" else hooks
    return reply({"success": True, "data": [_hook(hook) for hook in shown]})


def patch_webhook(call: SimRequest) -> Response:
    """Change the events of a registration, or enable or disable it."""
    hook = call.sim.world.hooks.get(call.request.path_params["hook"])
    if hook is None or hook.dialect != "cloudflare":
        raise WorldError(404, "invalid_request", "no such webhook")
    asked = {"events": list(hook.events), "enabled": hook.enabled} | call.body
    hook = replace(hook, events=_hook_events(asked), enabled=asked["enabled"] is True)
    call.sim.world.hooks[hook.id] = hook
    return _done(_hook(hook))


def _hook_events(body: Body) -> tuple[str, ...]:
    events = body.get("events")
    if not isinstance(events, list) or not {*map(str, events)} <= {*CLOUDFLARE_KINDS.values()}:
        raise WorldError(400, "invalid_request", "events is no list of events")
    return tuple(events)


def _hook(hook: Hook) -> Body:
    return {"id": hook.id, "url": hook.url, "events": hook.events, "enabled": hook.enabled}


def _published_key(sim: Sim) -> Any:
    async def publish(request: Request) -> Response:
        return reply({"success": True, "data": {"publicKey": sim.reports.signer.public_pem}})

    return publish


def _occupied(call: SimRequest) -> SimRoom:
    """The occupied room in the path, even if it is closed."""
    room = call.sim.world.rooms.get(call.request.path_params["id"])
    if room is None or not room.occupancy:
        raise WorldError(404, "SESSION_NOT_FOUND", "No active session found for meeting_id")
    return room


def _done(data: Body, status: int = 200) -> Response:
    return reply({"success": True, "data": data}, status)


def _page(call: SimRequest, entries: list[Body]) -> tuple[list[Body], Body]:
    size = call.number("per_page", 25, 100)
    start = (call.number("page_no", 1, 1_000_000) - 1) * size
    page = entries[start : start + size]
    end = start + len(page)
    return page, {"total_count": len(entries), "start_offset": start + 1, "end_offset": end}


def _meeting(room: SimRoom) -> Body:
    return {
        "id": room.id,
        "title": room.title,
        "status": "INACTIVE" if room.ended else "ACTIVE",
        "created_at": iso(room.created_at),
        "updated_at": iso(room.created_at),
    }


def _enrolled(room: SimRoom, user_id: str) -> Body:
    known, preset = room.enrolled[user_id]
    return {"id": known, "custom_participant_id": user_id, "preset_name": preset}


def _session(room: SimRoom) -> Body:
    return {
        "id": room.occupancy,
        "associated_id": room.id,
        "meeting_display_name": room.title,
        "type": "meeting",
        "status": "LIVE",
        "live_participants": len(room.present),
        "started_at": iso(room.peers[0].joined_at),
        "ended_at": None,
    }


def _ended(room: SimRoom, past: Past) -> Body:
    return _session(room) | {
        "id": past.id,
        "status": "ENDED",
        "live_participants": 0,
        "started_at": iso(past.peers[0].joined_at),
        "ended_at": iso(past.ended_at),
    }


def _occupancies(call: SimRequest, wanted: str) -> Iterator[tuple[SimRoom, list[Peer]]]:
    """The peers of a present or past occupancy."""
    for room in call.sim.world.rooms.values():
        if room.occupancy == wanted:
            yield room, room.peers
        yield from ((room, past.peers) for past in room.past if past.id == wanted)


def _peer(room: SimRoom, peer: Peer) -> Body:
    return {
        "id": peer.id,
        "user_id": room.enrolled.get(peer.user_id, ("", ""))[0],
        "custom_participant_id": peer.user_id,
        "joined_at": iso(peer.joined_at),
        "left_at": iso(peer.left_at) if peer.left_at is not None else None,
    }


def _token() -> str:
    return f"sim.{uuid.uuid4().hex}"
