"""Whether a write would be stored, and a message to another node would arrive.

Theory of operation. Every `PROBE_SECONDS` three plain commands go out. `SET` of the node's witness
is a write, and its reply must be what was written before: else Redis forgot, without a break.
`INFO` says whether the server is still the master it was. `PUBLISH` to our own channel must come
back over the bus. While the answer is not yes, and once on each new connection, a script publishes
instead, so that EVALSHA and TIME are tried too.

Commands and bus are on one server, or both are made anew: a bus that stayed on a demoted primary
would be deaf to all that the new one publishes. The same goes for a server whose history changed.
"""

import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError, StoreOverloaded
from syncbridge.slots import TAGS
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.messages import encode_echo, node_channel
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command
from syncbridge_server.redis.link.server_info import ServerInfo, info_fields
from syncbridge_server.redis.link.wire import pack

log = structlog.get_logger(__name__)

PROBE_SECONDS = 2.0
RETRY_SECONDS = 0.5
PAUSE_SECONDS = 0.1
ECHO_SECONDS = 2.0
HOLD_SECONDS = 10.0
"""How long a command that an ACL refused is remembered: the probe does not try all of them."""
WITNESS_MS = 86_400_000
REASONS = (
    "away",
    "moved",
    "readonly",
    "oom",
    "noperm",
    "refused",
    "bus_deaf",
    "bus_elsewhere",
)
_BY_CODE = {
    "MOVED": "moved",
    "ASK": "moved",
    "CLUSTERDOWN": "moved",
    "READONLY": "readonly",
    "OOM": "oom",
    "NOPERM": "noperm",
    "MISCONF": "refused",
    "NOREPLICAS": "refused",
}
_CODE = re.compile(r"\b(" + "|".join(_BY_CODE) + r")\b")


class Readiness:
    """The verdict on the present connections, one of `REASONS`, or empty for ready.

    Runs on the Trio thread.
    """

    def __init__(self, io: RedisIO, bus: RedisBus) -> None:
        self._io = io
        self._bus = bus
        self._key = f"w:{{{TAGS[0]}}}:{bus.node}"
        self._reason = "away"
        self._told = ""
        self._number = 0
        self._stored: int | None = None
        self._echoed = 0
        self._heard = trio.Event()
        self._wake = trio.Event()
        self._probing = False
        self._forbidden_until = 0.0
        self._proven: tuple[ServerInfo | None, ServerInfo | None] = (None, None)
        self._warned = ""
        self.changes = 0

    @property
    def reason(self) -> str:
        """Why a write would not be stored or a message not arrive; empty when both would."""
        return self._reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Readiness"]:
        """Watch around a block; it begins when there is a first verdict."""
        self._io.watch(self._changed, self._refused)
        self._bus.watch(self._changed, self._hear)
        await self._probe()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            try:
                yield self
            finally:
                nursery.cancel_scope.cancel()

    def figures(self) -> list[tuple[str, float]]:
        """For `/metrics`."""
        return [("ready", float(not self._reason)), ("readiness_changes_total", self.changes)]

    def by_reason(self) -> dict[str, float]:
        """1 for the present reason, 0 for the others."""
        return {reason: float(reason == self._reason) for reason in REASONS}

    async def _run(self) -> None:
        while True:
            with trio.move_on_after(RETRY_SECONDS if self._reason else PROBE_SECONDS):
                await self._wake.wait()
            self._wake = trio.Event()
            await self._probe()
            await trio.sleep(PAUSE_SECONDS)  # events that come in a row are looked at together

    async def _probe(self) -> None:
        self._probing = True
        try:
            reason = self._unconnected()
            if not reason:
                reason = await self._try_all()
            elif reason == "bus_elsewhere":
                self._renew()
            self._conclude(reason)
        except StoreOverloaded:
            pass  # a busy node says so to each caller
        finally:
            self._probing = False

    def _unconnected(self) -> str:
        """What can be said without asking."""
        if not self._io.connected:
            self._stored = None
            return _reason_in(self._io.refusing) or "away"
        if self._io.server is None or self._bus.server is None:
            return _reason_in(self._bus.reason) or "bus_deaf"
        return "" if self._io.server.run_id == self._bus.server.run_id else "bus_elsewhere"

    async def _try_all(self) -> str:
        servers = self._io.server, self._bus.server
        if servers[0] is not self._proven[0]:
            self._stored = None
        self._number += 1
        replies = await self._io.request(self._commands(again=servers == self._proven))
        if (self._io.server, self._bus.server) != servers:
            self._stored = None
            self._wake.set()
            return self._unconnected() or self._reason
        reason = _refusal(replies) or self._history(replies) or await self._echo(replies[2])
        if not reason:
            self._proven = servers
            await self._warn()
        return reason

    def _commands(self, again: bool) -> list[Command]:
        channel, echo = node_channel(self._bus.node), encode_echo(self._number)
        if again and not self._reason:
            publish = Command(pack("PUBLISH", channel, echo))
        else:
            publish = self._io.script_command("probe", (self._key,), (channel, echo))
        witness = pack("SET", self._key, self._number, "PX", WITNESS_MS, "GET")
        return [Command(witness), Command(pack("INFO", "replication")), publish]

    def _history(self, replies: Sequence[Any]) -> str:
        """Whether Redis is the master it was, and remembers what we wrote."""
        before, self._stored = self._stored, self._number
        fields = info_fields(replies[1].decode(errors="replace"))
        if fields.get("role") != "master":
            self._renew()
            return "readonly"
        server = self._io.server
        moved = server is not None and fields.get("master_replid") != server.history
        if moved or (before is not None and replies[0] != b"%d" % before):
            self._renew()
            return "bus_deaf"  # until it is subscribed anew, and all has been compared
        return ""

    async def _echo(self, listeners: int) -> str:
        if listeners == 0 and self._bus.connected:
            self._renew()
            return "bus_elsewhere"
        with trio.move_on_after(ECHO_SECONDS):
            while self._echoed < self._number:
                await self._heard.wait()
            return ""
        await trio.sleep(PAUSE_SECONDS)  # a process that stood still reads what has come first
        if self._echoed >= self._number:
            return ""
        self._renew()
        return "bus_deaf"

    def _renew(self) -> None:
        """Close both: what was subscribed and what was known belongs to another server."""
        self._stored = None
        self._io.renew()
        self._bus.renew()

    def _hear(self, payload: bytes) -> None:
        number = payload.split()[-1]
        if number.isdigit() and len(number) < 20:
            self._echoed = max(self._echoed, min(int(number), self._number))
            self._heard.set()
            self._heard = trio.Event()

    def _changed(self) -> None:
        """A connection was made or lost."""
        reason = self._unconnected()
        if reason:
            self._conclude(reason)
        self._wake.set()

    def _refused(self, codes: set[str]) -> None:
        """Redis refused commands of ours."""
        reasons = {_BY_CODE[code] for code in codes if code in _BY_CODE}
        if self._probing or not reasons:
            return
        if "moved" in reasons:
            self._io.renew()
        if "noperm" in reasons:
            self._forbidden_until = time.monotonic() + HOLD_SECONDS
            self._conclude("noperm")
        if self._reason not in reasons:
            self._wake.set()

    def _conclude(self, reason: str) -> None:
        if not reason and time.monotonic() < self._forbidden_until:
            reason = "noperm"
        if reason == self._reason and self._told:
            return
        self._reason, self._told = reason, "yes"
        self.changes += 1
        if reason:
            detail = self._io.refusing or self._bus.reason
            log.warning("store_not_ready", reason=reason, detail=detail)
        else:
            log.info("store_ready")

    async def _warn(self) -> None:
        """Once a server: what its configuration may lose."""
        server = self._io.server
        if server is None or server.run_id == self._warned:
            return
        self._warned = server.run_id
        for setting, advice in await configuration_warnings(self._io):
            log.warning("redis_configuration", setting=setting, advice=advice)


async def configuration_warnings(io: RedisIO) -> list[tuple[str, str]]:
    """Settings of Redis that lose sessions, with advice; not what it does not tell."""
    asked = (("INFO", "memory"), ("INFO", "persistence"), ("CONFIG", "GET", "save"))
    memory, persistence, save = await io.request([Command(pack(*words)) for words in asked])
    found: list[tuple[str, str]] = []
    policy = "noeviction"
    if isinstance(memory, bytes):
        policy = info_fields(memory.decode()).get("maxmemory_policy", policy)
    if policy != "noeviction":
        found.append((f"maxmemory-policy {policy}", "use noeviction: evicted keys are lost"))
    aof = isinstance(persistence, bytes) and b"aof_enabled:0" in persistence
    if aof and isinstance(save, list) and save[1:] == [b""]:
        found.append(("no persistence", "use appendonly yes: a restart loses every session"))
    return found


def _refusal(replies: Sequence[Any]) -> str:
    errors = [str(reply.detail) for reply in replies if isinstance(reply, StoreError)]
    return next((_reason_in(error) or "away" for error in errors), "")


def _reason_in(text: str) -> str:
    found = _CODE.search(text)
    return _BY_CODE[found.group()] if found else ""
