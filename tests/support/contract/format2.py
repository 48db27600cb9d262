"""Calls of the scripts of format 2 on a plain connection, and their answers."""

from typing import Any

import redis

from support.contract.canonical import spelling
from support.contract.histories import Numbered
from syncbridge.limits import Limits
from syncbridge.records.sessions import Operation
from syncbridge.slots import session_key
from syncbridge_server.redis.scripts import Scripts as ServerScripts

LETTERS = "mdkjcop"
NODE = "n1"


def source(name: str, limits: Limits | None = None) -> str:
    """A script as a server with these limits loads it."""
    scripts = ServerScripts()
    scripts.limit(limits or Limits())
    return scripts.sources[name].decode()


def arguments(write: Numbered, node: str = NODE) -> list[bytes | str | int]:
    """ARGV of apply.lua."""
    request = write.request
    marks = [spelling(value) for value in request.sets[1::2]]
    free_id = bool(request.mutation_id) and not write.seq
    base = request.base_version >= 0
    flags = request.owner_check + 16 * request.create + 32 * request.replace
    flags += 64 * any(marks) + 128 * free_id + 256 * base + 512 * bool(request.deletes)
    flags += 1024 * request.mode + 4096 * request.operation
    args: list[bytes | str | int] = [flags, request.user_id, request.device_id, node, request.fence]
    args += [write.stream, write.seq, write.nonce, request.mutation_id, len(request.sets) // 2]
    args += request.sets
    args += [len(request.deletes), *request.deletes] if request.deletes else []
    args += [request.base_version, write.base_lineage] if base else []
    args += [request.app_version] if request.replace else []
    if request.operation is Operation.CAS:
        args += [request.expected, spelling(request.expected) if request.expected else b""]
    return args + marks if any(marks) else args


class Scripts:
    """apply.lua on one server."""

    def __init__(self, raw: redis.Redis, limits: Limits | None = None) -> None:
        self._raw = raw
        self._apply: Any = raw.register_script(source("apply", limits))

    def apply(self, write: Numbered, *, node: str = NODE, every_key: bool = True) -> list[Any]:
        """One write; `every_key` declares all keys, as a cluster requires."""
        sid = write.request.sid
        keys = [session_key(sid, letter) for letter in (LETTERS if every_key else "m")]
        if every_key and write.request.mutation_id:
            keys.append(session_key(sid, f"f:{write.request.device_id}"))
        reply: list[Any] = self._apply(keys, arguments(write, node))
        return reply
