"""What a Redis server reports on a new connection, and whether it is usable."""

import re
from collections.abc import Sequence
from typing import Any

import hiredis
import msgspec

from syncbridge_server.redis.durability import (
    MEMORY,
    Durability,
    lacking_fsync,
    lacking_replicas,
    online_replicas,
)
from syncbridge_server.redis.link.rights import require_rights
from syncbridge_server.redis.link.slot_map import SlotMap
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import Wire, WireBroken, pack

OLDEST_SERVER = (7, 0)
TOO_OLD = "Redis 7.0 or newer is needed"
_CODE = re.compile(r"[A-Z]+")
_IN_SCRIPT = ("running script", "@user_script", "script: ")
NOT_ALLOWED = "user executing the script"


class ServerInfo(msgspec.Struct, frozen=True):
    """One server, as it was when a connection to it was made.

    Args:
        run_id: new with each start of the process.
        history: `master_replid`, new with each start and each promotion.
        cluster: whether it is a node of a cluster.
        address: as it was connected to; None for a Unix socket.
        slots: the map of the cluster as it knows it.
        lacks: why it cannot keep what is configured as durability; empty when it can.
        replicas: that were in step.
    """

    version: tuple[int, ...]
    run_id: str
    history: str
    cluster: bool
    address: Address | None = None
    slots: SlotMap | None = None
    lacks: str = ""
    replicas: int = 0


def interview(
    wire: Wire,
    deadline: float,
    *,
    for_map: bool = False,
    durability: Durability = MEMORY,
) -> ServerInfo:
    """Ask a new connection's server.

    Raises WireBroken when it is too old, not a master, or denies required commands.

    `for_map`: a replica is accepted, because it has the slot map.
    """
    asked = [pack("INFO", section) for section in ("server", "replication", "cluster")]
    text = b"\r\n".join(ask(wire, asked, deadline)).decode(errors="replace")
    fields = info_fields(text)
    major, minor = (fields.get("redis_version", "") + ".0.0").split(".")[:2]
    version = (int(major or 0), int(minor or 0)) if (major + minor).isdigit() else (0, 0)
    if version < OLDEST_SERVER:
        raise WireBroken(TOO_OLD, sent=False)
    cluster = fields.get("cluster_enabled") == "1"
    if fields.get("role") != "master" and not (cluster and for_map):
        raise WireBroken("not a master: READONLY", sent=False)
    require_rights(wire, deadline)
    slots = None
    if cluster:
        reply = ask(wire, [pack("CLUSTER", "SLOTS")], deadline)[0]
        slots = SlotMap.read(reply, wire.address)
    run_id, history = fields.get("run_id", ""), fields.get("master_replid", "")
    lacks = lacking_replicas(fields, durability.replicas)
    if durability.fsync:
        lacks = lacking_fsync(_persistence(wire, deadline))
    replicas = online_replicas(fields)
    return ServerInfo(version, run_id, history, cluster, wire.address, slots, lacks, replicas)


PERSISTENCE = ("CONFIG", "GET", "appendonly", "appendfsync")


def _persistence(wire: Wire, deadline: float) -> dict[str, str]:
    replies: list[Any] = []
    wire.exchange([pack(*PERSISTENCE)], replies, deadline)
    return settings_of(replies[0])


def settings_of(reply: Any) -> dict[str, str]:
    """The answer to CONFIG GET; empty for a refusal."""
    if not isinstance(reply, list):
        return {}
    words = [word.decode(errors="replace") for word in reply]
    return dict(zip(words[::2], words[1::2], strict=True))


def info_fields(text: str) -> dict[str, str]:
    """The `name:value` lines of INFO."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value for name, separator, value in pairs if separator}


def ask(wire: Wire, packed: Sequence[bytes], deadline: float) -> list[Any]:
    """Commands and their replies; raises WireBroken naming the code of the first refusal."""
    replies: list[Any] = []
    wire.exchange(packed, replies, deadline)
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            raise WireBroken(f"not ready: {error_code(reply)}", sent=False)
    return replies


def error_code(reply: Exception) -> str:
    """The error's code word. The rest may quote data, and is dropped."""
    text = str(reply)
    if NOT_ALLOWED in text:
        return "NOPERM"
    found = _CODE.match(text)
    return found.group() if found else "ERR"


def stopped_a_script(reply: Exception) -> bool:
    """Whether an ACL refused a command of a script, so that what came before it was done."""
    text = str(reply)
    inside = NOT_ALLOWED in text or any(sign in text for sign in _IN_SCRIPT)
    return inside and error_code(reply) == "NOPERM"
