"""A cluster in memory, and a router before it, driven step by step: for orders of events by chance.

Servers know lists only (RPUSH); each has a replica that lags (WAIT). What the router writes and
what servers reply waits in queues, so that every interleaving of writing, serving, replying and
moving slots can come about.
"""

import random
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import hiredis
import pytest

from syncbridge.slots import SLOTS, TAGS, slot_of
from syncbridge_server.redis.link.link import LinkState
from syncbridge_server.redis.link.pipeline import ASKING, Confirm, Job, plain, slot_of_key
from syncbridge_server.redis.link.router import Router
from syncbridge_server.redis.link.server_info import ServerInfo
from syncbridge_server.redis.link.slot_map import SlotMap
from syncbridge_server.redis.link.urls import Address

SEED = Address("a", 1)
OTHER = Address("b", 2)


class Server:
    """One primary. `owner` is its view of who serves each slot that is not its own."""

    def __init__(self, address: Address, world: "World") -> None:
        self.address = address
        self._world = world
        self.lists: dict[bytes, list[int]] = {}
        self.migrating: set[int] = set()
        self.importing: set[int] = set()
        self.asking = False
        self.loaded = True
        self.numbers: list[int] = []
        self.replicated = self.written = 0

    def reply(self, words: list[bytes]) -> Any:
        """What Redis answers."""
        asking, self.asking = self.asking, False
        if words[0] == b"ASKING":
            self.asking = True
            return b"OK"
        if words[0] == b"SCRIPT":
            self.loaded = True
            return b"digest"
        if words[0] == b"WAIT":
            return self._replicate()
        if words[0] == b"SET":
            return self._refusal(words[1], asking) or self._write(-1)
        if words[0] != b"RPUSH":
            return self._world.slots() if words[0] == b"CLUSTER" else b"PONG"
        return self._refusal(words[1], asking) or self._push(words[1], int(words[2]))

    def _refusal(self, key: bytes, asking: bool) -> Exception | None:
        slot = slot_of_key(key.decode())
        owner = self._world.owners[slot]
        if owner != self.address and not (asking and slot in self.importing):
            return hiredis.ReplyError(f"MOVED {slot} {owner.host}:{owner.port}")
        if slot in self.migrating and key not in self.lists:
            target = self._world.target
            return hiredis.ReplyError(f"ASK {slot} {target.host}:{target.port}")
        if slot in self.importing and self._world.chance.random() < 0.2:
            return hiredis.ReplyError("TRYAGAIN Multiple keys request during rehashing of slot")
        if not self.loaded:
            return hiredis.ReplyError("NOSCRIPT No matching script.")
        return None

    def _push(self, key: bytes, number: int) -> int:
        found = self.lists.setdefault(key, [])
        found.append(number)
        self._write(number)
        return len(found)

    def _write(self, number: int) -> bytes:
        self.numbers.append(number)
        self.written = len(self.numbers)
        return b"OK"

    def _replicate(self) -> int:
        """What WAIT answers: of the last write of this connection, and of nothing else."""
        if self._world.chance.random() < 0.8:
            self.replicated = len(self.numbers)
        self._world.safe.update(self.numbers[: self.replicated])
        return int(self.replicated >= self.written)

    def reconnected(self) -> None:
        """A new connection has written nothing yet."""
        self.written, self.asking = 0, False


class World:
    """Two servers, one router, and commands on a few keys of one slot and of another one.

    Attributes:
        sent, answered: per key the numbers submitted, and those acknowledged, in order.
        refused: per key the numbers that were not done; `unknown`: those of which nobody knows.
        delivered: numbers of jobs.
        safe: numbers that a replica has had.
    """

    def __init__(self, seed: int, replicas: int = 0) -> None:
        self.chance = random.Random(seed)
        self.now = 1.0
        self.owners = [SEED] * SLOTS
        self.target = OTHER
        self.servers = {address: Server(address, self) for address in (SEED, OTHER)}
        loads = [plain("SCRIPT", "LOAD", "x").packed]
        self.router = Router(lambda: loads, 1.0, replicas=replicas)
        self.safe: set[int] = set()
        self._replicas = replicas
        self.requests: dict[Address, deque[list[bytes]]] = {SEED: deque(), OTHER: deque()}
        self.replies: dict[Address, deque[Any]] = {SEED: deque(), OTHER: deque()}
        self.keys = ["{s}:1", "{s}:2", "{s}:3", "{t}:1"]
        self.moving = slot_of_key("{s}:1")
        self.answers: dict[str, list[tuple[int, Any]]] = {key: [] for key in self.keys}
        self.submitted = self.moves = 0
        self.delivered: list[int] = []
        self._settle_links()

    # What Redis does

    def slots(self) -> list[Any]:
        """CLUSTER SLOTS."""
        ranges: list[Any] = []
        for slot in range(SLOTS):
            owner = self.owners[slot]
            if ranges and ranges[-1][2][0] == owner.host.encode():
                ranges[-1][1] = slot
            else:
                ranges.append([slot, slot, [owner.host.encode(), owner.port]])
        return ranges

    def begin_move(self) -> None:
        """The slot begins to leave its owner."""
        source = self.owners[self.moving]
        self.target = OTHER if source == SEED else SEED
        self.servers[source].migrating.add(self.moving)
        self.servers[self.target].importing.add(self.moving)

    def move_step(self) -> None:
        """One key moves; after the last one the slot belongs to the target."""
        source, target = self.servers[self.owners[self.moving]], self.servers[self.target]
        for key in [key for key in source.lists if key.startswith(b"{s}")]:
            target.lists[key] = source.lists.pop(key)
            return
        source.migrating.clear()
        target.importing.clear()
        self.owners[self.moving] = self.target
        self.moves += 1

    def serve(self, address: Address) -> None:
        """A server takes its next command."""
        if self.requests[address]:
            words = self.requests[address].popleft()
            self.replies[address].append(self.servers[address].reply(words))

    # What the client does

    def submit(self) -> None:
        """A job of one to three commands."""
        number = self.submitted
        self.submitted += 1
        keys = [self.chance.choice(self.keys) for _ in range(self.chance.randint(1, 3))]

        def deliver(replies: list[Any]) -> None:
            self.delivered.append(number)
            for key, at, reply in zip(keys, range(3), replies, strict=False):
                self.answers[key].append((3 * number + at, reply))

        commands = [
            plain("RPUSH", key, 3 * number + at, confirm=Confirm.YES) for at, key in enumerate(keys)
        ]
        self.router.submit(Job(commands, 0, self.now + 1.0, deliver), self.now)

    def probe(self) -> None:
        """What a node writes in any case, for each server that lacks replicas."""
        for link in self.router.links.values():
            if link.lacks and self.router.map is not None and link.address in self.servers:
                owners = self.router.map.owners
                tag = next((tag for tag in TAGS if owners[slot_of(tag)] == link.address), "s")
                command = plain("SET", f"w:{{{tag}}}", confirm=Confirm.PROBE)
                self.router.submit(Job([command], 0, self.now + 1.0, _ignore), self.now)

    def write(self) -> None:
        """Move what the router wants to write to the servers."""
        for link in list(self.router.links.values()):
            if link.state is not LinkState.UP or link.address is None:
                continue
            while output := bytes(link.outgoing(self.now)):
                link.wrote(len(output))
                self.requests[link.address].extend(_commands(output))

    def receive(self, address: Address) -> None:
        """Some replies of a server arrive."""
        link = self.router.links.get(address)
        waiting = self.replies[address]
        count = self.chance.randint(1, 4)
        found = [waiting.popleft() for _ in range(min(count, len(waiting)))]
        if link is not None and found:
            self.router.received(link, found, self.now)

    def cut(self, address: Address) -> None:
        """A connection breaks; what the server has not read is lost."""
        link = self.router.links.get(address)
        if link is not None and link.state is LinkState.UP:
            self.requests[address].clear()
            self.replies[address].clear()
            self.servers[address].reconnected()
            self.router.lost(link, "cut", self.now)

    def pass_time(self) -> None:
        """A millisecond."""
        self.now += 0.001
        self.router.passed(self.now)
        self._settle_links()
        for job in self.router.finished:
            job.deliver(job.replies)
        self.router.finished = []

    def _settle_links(self) -> None:
        self.router.passed(self.now)
        opening, self.router.opening = self.router.opening, []
        for address in opening:
            known = SlotMap.read(self.slots(), SEED)
            info = ServerInfo((7, 0), "r", "h", True, address or SEED, known)
            self.router.opened(address, info, self.now)
        self.router.closing.clear()

    def run(self, steps: int, *, cuts: bool = False) -> None:
        """Random steps, and then rest."""
        actions: list[Callable[[], None]] = [self.submit, self.write, self.pass_time]
        actions += [lambda: self.receive(SEED), lambda: self.receive(OTHER)] * 2
        actions += [lambda: self.serve(SEED), lambda: self.serve(OTHER)] * 3
        for _ in range(steps):
            self.chance.choice(actions)()
            if self.chance.random() < 0.03:
                self._move()
            if self.chance.random() < 0.002:
                self.chance.choice(list(self.servers.values())).loaded = False
            if self._replicas and self.chance.random() < 0.02:
                self.probe()
            if cuts and self.chance.random() < 0.01:
                self.cut(self.chance.choice([SEED, OTHER]))
        self._rest()

    def _move(self) -> None:
        if self.servers[self.owners[self.moving]].migrating:
            self.move_step()
        elif not self._is_asking():
            self.begin_move()

    def _is_asking(self) -> bool:
        """Whether an ASK of the last move is still on its way. Real moves take longer than that."""
        replies = [str(reply) for found in self.replies.values() for reply in found]
        requests = [words[0] for found in self.requests.values() for words in found]
        asked = any(trouble.asked for trouble in self.router._lanes.values())
        asked |= any(server.asking for server in self.servers.values())
        queues = [item.command for link in self.router.links.values() for item in link.queue]
        return (
            asked
            or ASKING in queues
            or b"ASKING" in requests
            or any(text[:3] == "ASK" for text in replies)
        )

    def _rest(self) -> None:
        for _ in range(5_000):
            self.probe()
            if len(self.delivered) == self.submitted:
                return
            self.write()
            for address in self.servers:
                for _ in range(8):
                    self.serve(address)
                self.receive(address)
            self.pass_time()
        raise AssertionError("jobs without an answer")

    def stored(self, key: str) -> list[int]:
        """The contents of the servers."""
        lists = [s.lists.get(key.encode(), []) for s in self.servers.values()]
        assert not all(lists), "a key is on both servers"
        return [number for found in lists for number in found]


def _ignore(replies: list[Any]) -> None:
    """Replies that are ignored."""


def _commands(output: bytes) -> list[list[bytes]]:
    reader = hiredis.Reader()
    reader.feed(output)
    found: list[list[bytes]] = []
    while (words := reader.gets()) is not False:
        found.append(words)
    return found


def inversions(numbers: list[int]) -> int:
    """How often a number follows a greater one."""
    return sum(one > other for one, other in pairwise(numbers))


# A router without the rule of lanes

LATER_SECONDS = 0.01


def send_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is sent again after a pause, and what comes meanwhile is sent at once."""
    late: list[tuple[float, Any, Any, bool]] = []

    def sent_later(router: Router, link: Any, item: Any, code: str, text: str, now: float) -> None:
        not_done(router, link, item, code, text, now)
        trouble = router._lanes.pop(item.lane)
        for parked in trouble.parked:
            link.put(parked)
        asked = router.links.get(trouble.asked) if trouble.asked else None
        late.append((now + LATER_SECONDS, asked or router._owner(item), item, asked is not None))

    def later(router: Router, now: float) -> None:
        while late and late[0][0] <= now:
            _, link, item, asking = late.pop(0)
            link.put(item, asking=asking)
        passed(router, now)

    def sooner(router: Router) -> float | None:
        times = [time for time in (due(router), late[0][0] if late else None) if time is not None]
        return min(times, default=None)

    not_done, passed, due = Router._not_done, Router.passed, Router.due
    monkeypatch.setattr(Router, "_not_done", sent_later)
    monkeypatch.setattr(Router, "passed", later)
    monkeypatch.setattr(Router, "due", sooner)
