"""Encodes requests of `syncbridge.records.nodes` as commands, and decodes their replies.

The companion of `device_codec`, for nodes and their lists of sessions.
"""

from collections.abc import Callable
from typing import Any

from syncbridge.records.devices import Done
from syncbridge.records.nodes import (
    Condemn,
    Dismiss,
    Held,
    KeepLease,
    ListHeld,
    ListNodes,
    NodeList,
    Release,
    Renew,
    Renewed,
    Sweep,
    Swept,
    TakeLease,
    Taken,
)
from syncbridge.records.sessions import Result
from syncbridge_server.redis.stores.codec import Argument, ScriptCall, StoreSettings
from syncbridge_server.redis.stores.keys import held_key, held_list

NODES, DEAD = "nodes:{nodes}", "dead:{nodes}"
PAGE = 256


def _plain(key: str, *args: Argument, repeatable: bool = True) -> ScriptCall:
    """A plain command on one key, its first argument."""
    return ScriptCall("", (key,), [args[0], key, *args[1:]], repeatable)


def _list(dead: bool) -> str:
    return DEAD if dead else NODES


def _lease(task: str) -> str:
    return f"lease:{{nodes}}:{task}"


def _renew(request: Renew, settings: StoreSettings) -> ScriptCall:
    # Not repeatable: the second answer would say that the entry was there.
    return _plain(NODES, "HSET", request.node, request.entry, repeatable=False)


def _list_nodes(request: ListNodes, settings: StoreSettings) -> ScriptCall:
    return _plain(_list(request.dead), "HGETALL")


def _condemn(request: Condemn, settings: StoreSettings) -> ScriptCall:
    return _plain(DEAD, "HSETNX", request.node, request.at)


def _dismiss(request: Dismiss, settings: StoreSettings) -> ScriptCall:
    return _plain(_list(request.dead), "HDEL", request.node)


def _take_lease(request: TakeLease, settings: StoreSettings) -> ScriptCall:
    return _plain(_lease(request.task), "SET", request.node, "NX", "PX", request.life_ms)


def _keep_lease(request: KeepLease, settings: StoreSettings) -> ScriptCall:
    return _plain(_lease(request.task), "PEXPIRE", request.life_ms)


def _list_held(request: ListHeld, settings: StoreSettings) -> ScriptCall:
    return _plain(held_list(request.bucket, request.node), "SSCAN", request.cursor, "COUNT", PAGE)


def _release(request: Release, settings: StoreSettings) -> ScriptCall:
    return _plain(held_key(request.sid, request.node), "SREM", request.sid)


def _sweep(request: Sweep, settings: StoreSettings) -> ScriptCall:
    args: list[Argument] = [settings.flags(), request.node, request.presence_ms, request.most]
    keys = settings.keys(request.sid, held_key(request.sid, request.node))
    return ScriptCall("sweep", keys, args, True)


def _node_list(reply: list[bytes]) -> NodeList:
    names = [text.decode(errors="surrogateescape") for text in reply]
    return NodeList(dict(zip(names[::2], names[1::2], strict=True)))


def _held(reply: list[Any]) -> Held:
    return Held([sid.decode(errors="surrogateescape") for sid in reply[1]], int(reply[0]))


NODE_CODECS: dict[type, tuple[Callable[..., ScriptCall], Callable[..., Result]]] = {
    Renew: (_renew, lambda reply: Renewed(bool(reply))),
    ListNodes: (_list_nodes, _node_list),
    Condemn: (_condemn, lambda reply: Done()),
    Dismiss: (_dismiss, lambda reply: Done()),
    TakeLease: (_take_lease, lambda reply: Taken(reply is not None)),
    KeepLease: (_keep_lease, lambda reply: Taken(bool(reply))),
    ListHeld: (_list_held, _held),
    Release: (_release, lambda reply: Done()),
    Sweep: (_sweep, lambda reply: Swept(reply[0], bool(reply[1]))),
}
