"""Encodes requests of `syncbridge.records.devices` as script calls, and decodes their replies.

The companion of `codec`, for devices, handoffs and users.
"""

from collections.abc import Callable
from typing import Any

from syncbridge.integrity import TIME_MOST
from syncbridge.records.devices import (
    Departure,
    DeviceList,
    Done,
    Expel,
    Forget,
    Handoff,
    ListDevices,
    ListSessions,
    OpenHandoff,
    Peek,
    Peeked,
    Redeem,
    Redeemed,
    Remember,
    SessionList,
)
from syncbridge.records.sessions import Result, Status
from syncbridge_server.redis.stores.codec import Argument, ScriptCall, StoreSettings, devices
from syncbridge_server.redis.stores.keys import handoff_key
from syncbridge_server.redis.stores.node_codec import NODE_CODECS

REMEMBERED_MS = 3_600_000
"""How long an expired handoff token is distinguished from an unknown one."""

HANDOFFS = 256
"""Most tokens of one session; above it the oldest is dropped."""

USER_SESSIONS = 10_000
"""Most sessions listed for one user; above it the least recently used is dropped."""


def _user(user_id: str) -> tuple[str, ...]:
    return (f"u:{user_id}",)


def _list_devices(request: ListDevices, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [settings.flags(request.owner_check), request.user_id]
    return ScriptCall("devices", settings.keys(request.sid), args, True)


def _expel(request: Expel, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [
        settings.flags(request.owner_check),
        request.user_id,
        request.device_id,
        settings.node,
    ]
    # Not repeatable: the second answer would say that there is no such device.
    return ScriptCall("expel", settings.keys(request.sid), args, False)


def _remember(request: Remember, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [request.sid, settings.ttl_ms, USER_SESSIONS]
    return ScriptCall("remember", _user(request.user_id), args, True)


def _forget(request: Forget, settings: StoreSettings) -> ScriptCall:
    return ScriptCall("forget", _user(request.user_id), list(request.sids), True)


def _list_sessions(request: ListSessions, settings: StoreSettings) -> ScriptCall:
    activity, sid = request.after or ("+inf", "")
    args: list[Argument] = [settings.ttl_ms, request.limit, activity, sid]
    return ScriptCall("usersessions", _user(request.user_id), args, True)


def _peek(request: Peek, settings: StoreSettings) -> ScriptCall:
    return ScriptCall("peek", settings.keys(request.sid), [settings.flags()], True)


def _open_handoff(request: OpenHandoff, settings: StoreSettings) -> ScriptCall:
    keys = (handoff_key(request.sid, request.digest), handoff_key(request.sid))
    args: list[Argument] = [
        settings.flags(request.owner_check),
        request.user_id,
        request.source,
        request.target,
        request.digest,
        request.life_ms,
        REMEMBERED_MS,
        HANDOFFS,
    ]
    return ScriptCall("handoff_create", settings.keys(request.sid, *keys), args, True)


def _redeem(request: Redeem, settings: StoreSettings) -> ScriptCall:
    keys = (handoff_key(request.sid, request.digest), handoff_key(request.sid, "a"))
    args: list[Argument] = [
        settings.flags(request.owner_check),
        request.user_id,
        request.digest,
        request.device_id,
        request.reread_ms,
        settings.node,
    ]
    # Repeatable: the second time is a re-read.
    call = settings.keys(request.sid, *keys)
    return ScriptCall("handoff_redeem", call, args, request.reread_ms > 0)


def _device_list(reply: list[Any]) -> DeviceList:
    if len(reply) == 1:
        return DeviceList(Status(reply[0]))
    return DeviceList(Status(reply[0]), devices(reply[1], reply[3]), reply[2], reply[3])


def _departure(reply: list[Any]) -> Departure:
    if len(reply) == 1:
        return Departure(Status(reply[0]))
    status, fence, version, epoch, lineage = reply
    return Departure(Status(status), fence, version, epoch.decode(), lineage.decode())


def _done(reply: Any) -> Done:
    return Done()


def _session_list(reply: list[Any]) -> SessionList:
    pairs = zip(reply[1::2], reply[2::2], strict=True)
    listed = [
        (sid.decode(errors="surrogateescape"), min(max(activity, 0), TIME_MOST))
        for sid, activity in pairs
    ]
    return SessionList(listed, bool(reply[0]))


def _peeked(reply: list[Any]) -> Peeked:
    exists, owner, version, epoch, lineage, updated, online, size = reply
    names = [device_id.decode() for device_id in online]
    place = (version, epoch.decode(), updated)
    return Peeked(bool(exists), owner.decode(), *place, names, lineage.decode(), size)


def _handoff(reply: list[Any]) -> Handoff:
    if len(reply) == 1:
        return Handoff(Status(reply[0]))
    return Handoff(Status(reply[0]), reply[1], [digest.decode() for digest in reply[2]])


def _redeemed(reply: list[Any]) -> Redeemed:
    if len(reply) == 1:
        return Redeemed(Status(reply[0]))
    source, target, epoch, lineage = (reply[at].decode() for at in (1, 2, 4, 5))
    pairs = zip(reply[7][::2], reply[7][1::2], strict=True)
    flat = [text for pair in pairs if pair[0] for text in pair]
    return Redeemed(Status(reply[0]), source, target, reply[3], epoch, flat, reply[6], lineage)


QUERY_CODECS: dict[type, tuple[Callable[..., ScriptCall], Callable[..., Result]]] = {
    **NODE_CODECS,
    ListDevices: (_list_devices, _device_list),
    Expel: (_expel, _departure),
    Remember: (_remember, _done),
    Forget: (_forget, _done),
    ListSessions: (_list_sessions, _session_list),
    Peek: (_peek, _peeked),
    OpenHandoff: (_open_handoff, _handoff),
    Redeem: (_redeem, _redeemed),
}
"""The encoder and decoder of each request."""
