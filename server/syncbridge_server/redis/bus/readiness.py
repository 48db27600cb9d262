"""Readiness: a write would be stored, and a message to another node would arrive.

Theory of operation. Every `PROBE_SECONDS` a plain command goes to each primary. The probe writes
the node's witness with `SET`. The reply must be the previous value; otherwise Redis lost data
without a connection break. Devices must learn of that within 2 s, which leaves 0.8 s to compare
their sessions.

Every third probe is a full one, as is each while the node is not ready or after a new connection.
It also asks `INFO`, whether the server is still the master it was, and publishes to our own
channel, which must come back over the bus; a script does that until everything has worked once on a
connection, so that EVALSHA and TIME are tried too. Witness and channel are in the first bucket that
the primary serves. Where replicas confirm writes, they also confirm the witness of a full probe;
where writes must be on disk, the probe reads the settings that this needs.

Commands and bus must be on one server, or both reconnect: a bus that stayed on a demoted primary
would miss all messages of the new one. The same applies to a server whose history changed, and to
one that the sentinels no longer name: cut off from them, it still considers itself the primary.
"""

import operator
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import structlog
import trio

from syncbridge.errors import StoreError, StoreOverloaded, StoreRejected, StoreTimeout
from syncbridge.slots import TAGS, slot_of
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.redis.bus.bus import RedisBus
from syncbridge_server.redis.bus.messages import encode_echo
from syncbridge_server.redis.durability import CODE, lacking_fsync
from syncbridge_server.redis.link.client import RedisIO
from syncbridge_server.redis.link.pipeline import Command, Confirm, plain
from syncbridge_server.redis.link.server_info import (
    PERSISTENCE,
    ServerInfo,
    info_fields,
    settings_of,
)
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import WireBroken

log = structlog.get_logger(__name__)

PROBE_SECONDS = 1.1
WHOLE_LOOKS = 3
"""One of this many probes is full: otherwise they would be more than three commands a second."""
SENTINEL_SECONDS = 2.0
RETRY_SECONDS = 0.5
RETURN_SECONDS = 0.1
"""Interval while replicas are missing: writes are refused until they confirm one of these
probes."""
PAUSE_SECONDS = 0.1
ECHO_SECONDS = 2.0
HOLD_SECONDS = 10.0
"""Seconds for which a refusal by an ACL is remembered: the probe does not try every command."""
MOST_NODE_TIMEOUT_MS = 5_000
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
    "durability",
    "old_node",
)
_BY_CODE = {
    "MOVED": "moved",
    "ASK": "moved",
    "CLUSTERDOWN": "moved",
    "READONLY": "readonly",
    "OOM": "oom",
    "NOPERM": "noperm",
    "HALF_DONE": "noperm",
    "MISCONF": "refused",
    "NOREPLICAS": "refused",
    CODE: "durability",
}
Servers = tuple[ServerInfo | None, ...]
"""The servers of a primary's commands, writes and bus, which must be the same."""
_CODE = re.compile(r"\b(" + "|".join(_BY_CODE) + r")\b")


class Primary:
    """What is known of one primary.

    Args:
        at: its address; None for the server that the URL names.
        tag: of the first bucket that it serves.

    Attributes:
        stored: the witness that it must have; None when it need not have one. proven: connections
            that have passed a full probe.
    """

    def __init__(self, at: Address | None, tag: str, node: str) -> None:
        self.at = at
        self.tag = tag
        self.witness = f"w:{{{tag}}}:{node}"
        self.channel = f"{{{tag}}}:{node}"
        self.stored: int | None = None
        self.number = 0
        self.proven: Servers = (None, None, None)


class StoreReadiness:
    """The readiness of the current connections: one of `REASONS`, or empty for ready.

    Runs on the Trio thread.
    """

    def __init__(self, io: RedisIO, bus: RedisBus) -> None:
        self._io = io
        self._bus = bus
        self._primaries: dict[Address | None, Primary] = {}
        self._reason = "away"
        self._told = ""
        self._number = 0
        self._echoes: set[int] = set()
        self._heard = trio.Event()
        self._wake = AutoResetEvent()
        self._probing = False
        self._forbidden_until = 0.0
        self._warned: set[str] = set()
        self.changes = 0
        self._old_nodes: list[str] = []
        self._seen: dict[tuple[int, Address | None], ServerInfo] = {}
        self._breaks: list[Callable[[], None]] = []

    def on_break(self, handler: Callable[[], None]) -> None:
        """`handler` is called when commands move to another connection."""
        self._breaks.append(handler)

    def beside(self, old_nodes: list[str]) -> None:
        """Nodes of the previous format run, with these names; this node must not write
        meanwhile."""
        if old_nodes != self._old_nodes:
            self._old_nodes = old_nodes
            self._wake.set()

    @property
    def reason(self) -> str:
        """Why the node is not ready; empty when it is."""
        return self._reason

    @asynccontextmanager
    async def running(self) -> AsyncIterator["StoreReadiness"]:
        """Probe around a block, which begins after the first probe."""
        self._io.watch(self._changed, self._refused)
        self._bus.watch(self._changed, self._hear)
        await self._probe(whole=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            if self._io.endpoint.by_sentinel:
                nursery.start_soon(self._ask_sentinels)
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
        for look in count(1):
            with trio.move_on_after(self._pause()) as pause:
                await self._wake.wait()
            woken = not pause.cancelled_caught
            await self._probe(whole=woken or bool(self._reason) or look % WHOLE_LOOKS == 0)
            await trio.sleep(PAUSE_SECONDS)  # events that come in a row are looked at together

    def _pause(self) -> float:
        """Seconds until the next look."""
        if not self._reason:
            return PROBE_SECONDS
        replicas = self._reason == "durability" and self._io.durability.replicas
        return RETURN_SECONDS if replicas else RETRY_SECONDS

    async def _ask_sentinels(self) -> None:
        """Close the connections to a server that the sentinels no longer name as the primary."""
        primary = partial(trio.to_thread.run_sync, self._io.endpoint.primary)
        while True:
            await trio.sleep(SENTINEL_SECONDS)
            server = self._io.server
            try:
                named = await primary(abandon_on_cancel=True)
            except WireBroken as broken:
                log.debug("sentinels_silent", reason=broken.reason)
                continue
            if server is not None and server is self._io.server and server.address != named:
                log.warning("primary_moved", primary=str(named))
                self._renew(None)

    async def _probe(self, *, whole: bool) -> None:
        self._probing = True
        try:
            reason = self._unconnected()
            if not reason:
                reason = await self._try_all(whole=whole)
            elif reason == "bus_elsewhere":
                for at in self._io.primaries():
                    if _elsewhere(self._servers(at)):
                        self._renew(at)
            self._conclude(reason)
        except StoreOverloaded:
            pass  # a busy node tells each caller so
        finally:
            self._probing = False

    def _servers(self, at: Address | None) -> Servers:
        connections = self._io.connections
        server = connections.servers.get(at)
        writes = connections.writers.get(at) if self._io.apart else server
        return server, writes, self._bus.servers.get(at)

    def _unconnected(self) -> str:
        """The reason that is known without a probe."""
        if not self._io.connected:
            for primary in self._primaries.values():
                primary.stored = None
            return _reason_in(self._io.refusing) or "away"
        found = [self._servers(at) for at in self._io.primaries()]
        if any(None in servers for servers in found):
            return _reason_in(self._bus.reason) or "bus_deaf"
        return "bus_elsewhere" if any(map(_elsewhere, found)) else ""

    def _survey(self) -> list[Primary]:
        """Those that serve a bucket, each with the first of them."""
        slots = self._io.connections.slots
        first: dict[Address | None, str] = {}
        for tag in TAGS if slots else TAGS[:1]:
            first.setdefault(slots.owners[slot_of(tag)] if slots else None, tag)
        known, self._primaries = self._primaries, {}
        for at, tag in first.items():
            primary = known.get(at)
            if primary is None or primary.tag != tag:
                primary = Primary(at, tag, self._bus.node)
            self._primaries[at] = primary
        return list(self._primaries.values())

    async def _try_all(self, *, whole: bool) -> str:
        self._echoes.clear()
        gaps, primaries = self._bus.gaps, self._survey()
        found = [self._servers(primary.at) for primary in primaries]
        pairs = list(zip(primaries, found, strict=True))
        whole = whole or any(servers != primary.proven for primary, servers in pairs)
        commands: list[Command] = []
        for primary, servers in pairs:
            commands += self._commands(primary, servers, whole=whole)
        replies = await self._io.request(commands)
        if [self._servers(primary.at) for primary in primaries] != found:
            for primary in primaries:
                primary.stored = None
            self._wake.set()
            return self._unconnected() or self._reason
        size = len(commands) // len(primaries)
        parts = [replies[at : at + size] for at in range(0, len(replies), size)]
        reasons = [self._judge(*one) for one in zip(primaries, parts, strict=True)]
        reason = next(filter(None, reasons), "")
        if whole and not reason:
            reason = await self._echo(primaries, gaps)
        if whole and not reason:
            for primary, servers in pairs:
                primary.proven = servers
                await self._warn(primary)
        return reason

    def _commands(self, primary: Primary, servers: Servers, *, whole: bool) -> list[Command]:
        if any(map(operator.is_not, servers[:2], primary.proven)):
            primary.stored = None
        self._number += 1
        primary.number = self._number
        words = ("SET", primary.witness, self._number, "PX", WITNESS_MS, "GET")
        witness = plain(*words, confirm=Confirm.PROBE if whole else Confirm.NO)
        if not whole:
            return [witness]
        echo = encode_echo(self._number)
        if servers == primary.proven and not self._reason:
            publish = plain("SPUBLISH", primary.channel, echo)
        else:
            keys, args = (primary.witness,), (primary.channel, echo)
            publish = self._io.script_command("probe", keys, args)
        asked = [witness, plain("INFO", "replication", at=primary.at), publish]
        if self._io.durability.fsync:
            asked.append(plain(*PERSISTENCE, at=primary.at))
        return asked

    def _judge(self, primary: Primary, replies: Sequence[Any]) -> str:
        """Whether it is the same master, has the witness, and is also the bus's server."""
        if _of_another_type(replies[0]):  # the witness was replaced
            self._io.submit([plain("DEL", primary.witness)], lambda _: None)
            replies = [None, *replies[1:]]
        reason = _refusal(replies[:3])
        if isinstance(replies[0], StoreTimeout):
            primary.stored = None  # this one or the one before
        if reason:
            return reason
        before, primary.stored = primary.stored, primary.number
        forgot = before is not None and replies[0] != b"%d" % before
        fields = info_fields(replies[1].decode(errors="replace")) if replies[1:] else {}
        if fields and fields.get("role") != "master":
            self._renew(primary.at)
            return "readonly"
        server = self._io.connections.servers.get(primary.at)
        moved = server is not None and fields and fields.get("master_replid") != server.history
        if moved or forgot:
            self._renew(primary.at)
            return "bus_deaf"  # until it has subscribed again, and all sessions are compared
        if not fields:
            return ""
        if replies[2] == 0 and self._bus.connected and self._io.connections.slots is None:
            self._renew(primary.at)
            return "bus_elsewhere"
        return self._on_disk(primary, replies[3]) if self._io.durability.fsync else ""

    def _on_disk(self, primary: Primary, reply: Any) -> str:
        """Whether writes go to disk, now and when the connection was made."""
        server = self._io.connections.servers.get(primary.at)
        lacks = lacking_fsync(settings_of(reply))
        if server is not None and bool(lacks) != bool(server.lacks):
            self._io.renew(primary.at)
        return "durability" if lacks or (server is not None and server.lacks) else ""

    async def _echo(self, primaries: Sequence[Primary], gaps: int) -> str:
        """Whether the published echo comes back; inconclusive while slots move."""
        missing = {primary.number for primary in primaries}
        with trio.move_on_after(ECHO_SECONDS):
            while not missing <= self._echoes:
                await self._heard.wait()
        if not missing <= self._echoes:
            await trio.sleep(
                PAUSE_SECONDS
            )  # a process that was paused first reads what has arrived
        deaf = [primary for primary in primaries if primary.number not in self._echoes]
        if self._bus.gaps != gaps:
            return ""
        for primary in deaf:
            self._renew(primary.at)
        return "bus_deaf" if deaf else ""

    def _renew(self, at: Address | None) -> None:
        """Close both connections: subscriptions and observations belong to another server."""
        if at in self._primaries:
            self._primaries[at].stored = None
        self._io.renew(at)
        self._bus.renew(at)

    def _hear(self, payload: bytes) -> None:
        number = payload.split()[-1]
        if number.isdigit() and len(number) < 20 and int(number) <= self._number:
            self._echoes.add(int(number))
            self._heard.set()
            self._heard = trio.Event()

    def _changed(self) -> None:
        """A connection was made or lost."""
        connections = self._io.connections
        servers = {(0, at): server for at, server in connections.servers.items()}
        servers |= {(1, at): server for at, server in connections.writers.items()}
        fresh = {at: server for at, server in servers.items() if server is not self._seen.get(at)}
        again = bool(self._seen)
        self._seen.update((at, server) for at, server in fresh.items() if server is not None)
        if again and any(fresh.values()):
            for handler in self._breaks:
                handler()
        reason = self._unconnected()
        if reason:
            self._conclude(reason)
        self._wake.set()

    def _refused(self, codes: set[str]) -> None:
        """Redis refused commands."""
        reasons = {_BY_CODE[code] for code in codes if code in _BY_CODE}
        if self._probing or not reasons:
            return
        if "moved" in reasons:
            self._io.doubt_map()
        if "noperm" in reasons:
            self._forbidden_until = time.monotonic() + HOLD_SECONDS
            self._conclude("noperm")
        if "HALF_DONE" in codes:
            # The next connection is used only when its user may run all commands of the scripts.
            for at in self._io.primaries():
                self._renew(at)
        if self._reason not in reasons:
            self._wake.set()

    def _conclude(self, reason: str) -> None:
        if not reason and time.monotonic() < self._forbidden_until:
            reason = "noperm"
        if not reason and self._old_nodes:
            reason = "old_node"
        if reason == self._reason and self._told:
            return
        self._reason, self._told = reason, "yes"
        self.changes += 1
        if reason:
            detail = self._io.refusing or self._bus.reason or ", ".join(self._old_nodes[:8])
            log.warning("store_not_ready", reason=reason, detail=detail)
        else:
            log.info("store_ready")

    async def _warn(self, primary: Primary) -> None:
        """Warn, once for each server, about a configuration that can lose data."""
        server = self._io.connections.servers.get(primary.at)
        if server is None or server.run_id in self._warned:
            return
        present = {other.run_id for other in self._io.connections.servers.values() if other}
        self._warned = (self._warned & present) | {server.run_id}
        found = await configuration_warnings(self._io, primary.at)
        where = {"server": str(primary.at)} if primary.at else {}
        for setting, advice in [*found, *durability_warnings(self._io, server)]:
            log.warning("redis_configuration", setting=setting, advice=advice, **where)


async def configuration_warnings(io: RedisIO, at: Address | None = None) -> list[tuple[str, str]]:
    """Settings of Redis that can lose sessions, with advice; unknown settings are skipped."""
    asked = (
        ("INFO", "memory"),
        ("INFO", "persistence"),
        ("CONFIG", "GET", "save"),
        ("CONFIG", "GET", "cluster-*"),
    )
    replies = await io.request([plain(*words, at=at) for words in asked])
    memory, persistence, save, cluster = replies
    found: list[tuple[str, str]] = []
    policy = "noeviction"
    if isinstance(memory, bytes):
        policy = info_fields(memory.decode()).get("maxmemory_policy", policy)
    if policy != "noeviction":
        found.append((f"maxmemory-policy {policy}", "use noeviction: evicted keys are lost"))
    aof = isinstance(persistence, bytes) and b"aof_enabled:0" in persistence
    if aof and isinstance(save, list) and save[1:] == [b""]:
        found.append(("no persistence", "use appendonly yes: a restart loses every session"))
    if io.connections.slots is not None and isinstance(cluster, list):
        found += _cluster_warnings(dict(zip(cluster[::2], cluster[1::2], strict=True)))
    return found


def durability_warnings(io: RedisIO, server: ServerInfo) -> list[tuple[str, str]]:
    """Replicas beyond N may lack a write, and can still be promoted."""
    wanted = io.durability.replicas
    if not 0 < wanted < server.replicas:
        return []
    advice = f"use replicas:{server.replicas}: one may be promoted that lacks a write"
    return [(f"replicas:{wanted} with {server.replicas} replicas", advice)]


def _cluster_warnings(settings: dict[bytes, bytes]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    timeout = settings.get(b"cluster-node-timeout", b"0")
    if int(timeout) > MOST_NODE_TIMEOUT_MS:
        advice = "use 2000: until a replica takes over, a dead primary's sessions are away"
        found.append((f"cluster-node-timeout {timeout.decode()}", advice))
    if settings.get(b"cluster-require-full-coverage") == b"yes":
        advice = "use no: one primary that is away makes all of them refuse"
        found.append(("cluster-require-full-coverage yes", advice))
    return found


def _elsewhere(servers: Servers) -> bool:
    return len({server.run_id for server in servers if server is not None}) > 1


def _of_another_type(reply: Any) -> bool:
    return isinstance(reply, StoreRejected) and "WRONGTYPE" in str(reply.detail)


def _refusal(replies: Sequence[Any]) -> str:
    errors = [str(reply.detail) for reply in replies if isinstance(reply, StoreError)]
    return next((_reason_in(error) or "away" for error in errors), "")


def _reason_in(text: str) -> str:
    found = _CODE.search(text)
    return _BY_CODE[found.group()] if found else ""
