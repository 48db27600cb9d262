"""Decides which server gets a command, and in which order answers come back. No socket, no clock.

Theory of operation. On a single Redis there is one link and no map. A server with
`cluster_enabled:1` reports a slot map; then there is one link for each primary in it. The map is
read again when a server answers MOVED, and ten times a second while one is down, which finds
promoted replicas. A server that is down affects only its own slots: their commands are refused.

Order has three parts. A connection keeps the order of its commands. `lanes.py` keeps the order of a
slot whose commands are redirected. Jobs with a common slot are delivered in order of submission.

After a break, it is unknown whether commands in flight were executed. Those that are safe to repeat
(reads, and writes that Redis recognizes) are sent once more, in order. The others answer
StoreTimeout, which means "unknown". After a missed deadline nothing is repeated.

Any other refusal (WRONGTYPE, OOM, READONLY...) means "not executed", because scripts check before
they write: StoreUnavailable with the error code, or StoreRejected if the stored data is the cause.
Only an ACL can forbid a command in the middle of a script, after a write: that is StoreTimeout.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import partial
from typing import Any

import hiredis

from syncbridge.errors import StoreError, StoreRejected, StoreTimeout, StoreUnavailable
from syncbridge.slots import TAGS, slot_of
from syncbridge_server.redis.durability import CODE
from syncbridge_server.redis.link.confirming import MOST_SHORT, Confirmation, Held
from syncbridge_server.redis.link.lanes import NOT_DONE, BlockedLane
from syncbridge_server.redis.link.link import Link, LinkState
from syncbridge_server.redis.link.pipeline import (
    PING,
    Command,
    Confirm,
    Job,
    Lane,
    LinkCommand,
    PendingCommand,
    Unconfirmed,
    link_command,
    slot_of_key,
    unknown,
)
from syncbridge_server.redis.link.server_info import ServerInfo, error_code, stopped_a_script
from syncbridge_server.redis.link.slot_map import SlotMap, redirection
from syncbridge_server.redis.link.urls import Address
from syncbridge_server.redis.link.wire import pack

OF_DATA = frozenset({"WRONGTYPE", "ERR"})
"""Error codes about the stored data, not about the server."""
MOST_LOADS = 2
REFRESH_SECONDS = 0.1
ASK_AGAIN_SECONDS = 0.005
IDLE_SECONDS = 2.0
LINGER_SECONDS = 10.0
"""Seconds for which a link outside of the map is kept: an importing server has no slot yet."""
BACKOFF_SECONDS = (0.05, 1.0)
HOME = slot_of(TAGS[0])
"""The slot whose server gets commands without keys."""
WAIT_SHARE = 0.7
"""Part of the time for an answer in which replicas must have a write: the rest is Redis's."""
CLUSTER_SLOTS = Command(pack("CLUSTER", "SLOTS"))


class Router:
    """See the top of this file.

    Args:
        loads: makes the commands that load the scripts.
        answer_seconds: how long Redis has to answer what was sent.
        replicas: how many must have what is to be confirmed, before that is answered.
        jitter: a factor of about 1, new with each call.

    Attributes:
        map: of the slots; None for a single Redis.
        links: by address; that of the URL has None.
        opening: addresses to which a connection is to be made; each is answered by a call of
            `opened` or `refused`.
        closing: links whose connection is to be closed.
        finished: jobs to be delivered, in order.
        refusals: codes with which Redis refused commands.
        changed: a connection was made or lost, or the map is another one.
    """

    def __init__(
        self,
        loads: Callable[[], list[bytes]],
        answer_seconds: float,
        jitter: Callable[[], float] = lambda: 1.0,
        *,
        replicas: int = 0,
    ) -> None:
        self._loads = loads
        self._answer_seconds = answer_seconds
        self._replicas = replicas
        self._jitter = jitter
        self._lanes: dict[Lane, BlockedLane] = {}
        self._line: deque[Job] = deque()
        self._tails: dict[Lane, Job] = {}
        self._map_asked = 0.0
        self._map_is_old = False
        self.map: SlotMap | None = None
        self.links: dict[Address | None, Link] = {}
        self._know(None)
        self.opening: list[Address | None] = []
        self.closing: list[Link] = []
        self.finished: list[Job] = []
        self.refusals: set[str] = set()
        self.changed = True

    # Jobs

    def submit(self, job: Job, now: float) -> None:
        """Send the commands of a job, or queue or refuse them. O(commands)."""
        items = [
            PendingCommand(command, job, at, command.key) for at, command in enumerate(job.commands)
        ]
        self._place(items)
        if self.map is None or not items:
            self._line.append(job)  # on a single Redis all keep one order
        else:
            self._line_up(job, {item.lane for item in items})
        if not items:
            self._complete(job)
        if self.map is None and not self._lanes and self.links[None].healthy:
            self.links[None].queue.extend(items)
        else:
            for item in items:
                self._route(item)

    def _place(self, items: Iterable[PendingCommand]) -> None:
        for item in items:
            if not item.lane:
                item.lane = item
            elif self.map is not None:
                item.lane = slot_of_key(item.command.key)

    def _line_up(self, job: Job, lanes: Set[Lane]) -> None:
        """Queue a job behind the last one of each of its lanes."""
        job.lanes = lanes
        for lane in lanes:
            last = self._tails.get(lane)
            if last is not None:
                last.after = last.after or []
                if not last.after or last.after[-1] is not job:
                    last.after.append(job)
                    job.before += 1
            self._tails[lane] = job

    def _complete(self, job: Job) -> None:
        """Every command of a job is answered: deliver it, and the jobs that waited for it."""
        if not job.lanes:
            line = self._line
            while line and not line[0].missing:
                self.finished.append(line.popleft())
            return
        ready = deque([job] if not job.before else [])
        while ready:
            job = ready.popleft()
            self.finished.append(job)
            for lane in job.lanes:
                if self._tails.get(lane) is job:
                    del self._tails[lane]
            for later in job.after or ():
                later.before -= 1
                if not later.before and not later.missing:
                    ready.append(later)

    def _settle(self, item: PendingCommand, reply: Any) -> None:
        job = item.job
        job.replies[item.index] = reply
        job.missing -= 1
        if not job.missing:
            self._complete(job)

    def _refuse(self, items: Iterable[PendingCommand], reason: str) -> None:
        """Answer commands that were not executed, or of which that is unknown."""
        for item in items:
            refusal = StoreUnavailable(f"Redis: {reason}")
            self._settle(item, unknown(reason) if item.repeated else refusal)

    def _route(self, item: PendingCommand) -> None:
        trouble = self._lanes.get(item.lane) if self._lanes else None
        if trouble is not None:
            trouble.parked.append(item)
            return
        link = self._owner(item)
        if link is None:
            self.refusals.add("CLUSTERDOWN")
            self._refuse([item], "a slot without a server: CLUSTERDOWN")
        elif link.state is LinkState.DOWN:
            self._refuse([item], link.reason)
        elif link.lacks and item.command.confirm is Confirm.YES:
            self._refuse([item], link.lacks)
        else:
            link.put(item)

    def _owner(self, item: PendingCommand) -> Link | None:
        """The link of an item's slot."""
        if self.map is None:
            return self.links[None]
        if isinstance(item.lane, int):
            return self.links.get(self.map.owners[item.lane])
        return self.links.get(item.command.at or self.map.owners[HOME])

    # Answers

    def received(self, link: Link, replies: Sequence[Any], now: float) -> None:
        """Replies came on a link, in the order of what was sent. O(replies)."""
        sent = link.sent
        link.used = now
        link.answered(len(replies))
        for reply in replies:
            item = sent.popleft()
            if isinstance(item, LinkCommand):
                item.answer(reply)
            elif type(reply) is hiredis.ReplyError:
                self._failed(link, item, reply, now)
            else:
                if self._lanes:
                    self._passed(item, done=True)
                confirm = link.confirmation and item.command.confirm
                if not confirm:
                    self._settle(item, reply)
                elif confirm is Confirm.NOTED and link.lacks:
                    self._settle(item, Unconfirmed(reply))
                else:
                    link.confirmation.held.append((item, reply))  # type: ignore[union-attr]

    def _confirmed(self, link: Link, held: Sequence[Held], enough: bool) -> None:
        """Replicas have what was done, or have not in time: then nobody knows what will last."""
        assert link.confirmation is not None
        few = f"fewer than {self._replicas} replicas have it: {CODE}"
        for item, reply in held:
            if not enough:
                noted = item.command.confirm is Confirm.NOTED
                reply = Unconfirmed(reply) if noted else unknown(few)
            self._settle(item, reply)
        self.refusals |= {CODE} if held and not enough else set()
        short = link.confirmation.short >= MOST_SHORT
        link.lacks = "" if enough else link.lacks or (few if short else "")

    def _passed(self, item: PendingCommand, *, done: bool) -> None:
        """An item that was under way is answered for good; `done`: perhaps it had an effect."""
        trouble = self._lanes.get(item.lane)
        if trouble is not None:
            overtaken = trouble.settled(item, done=done)
            self._refuse(overtaken, f"{trouble.code}, and a later command was quicker")

    def _failed(self, link: Link, item: PendingCommand, reply: Exception, now: float) -> None:
        code = error_code(reply)
        often = code == "NOSCRIPT" and item.loads >= MOST_LOADS
        if code in NOT_DONE and item.job.expires > now and not often:
            self._not_done(link, item, code, str(reply), now)
            return
        if self._lanes:
            self._passed(item, done=False)
        self._settle(item, self._refusal(link, item, reply, code))

    def _refusal(self, link: Link, item: PendingCommand, reply: Exception, code: str) -> StoreError:
        self.refusals.add(code)
        if code == "READONLY":
            link.leaving = True
        if item.repeated and code in NOT_DONE:
            return unknown(f"connection lost, then {code}")
        if stopped_a_script(reply):
            self.refusals.add("HALF_DONE")
            return StoreTimeout(f"Redis refused: {code} within a script; the outcome is not known")
        return (StoreRejected if code in OF_DATA else StoreUnavailable)(f"Redis refused: {code}")

    def _not_done(self, link: Link, item: PendingCommand, code: str, text: str, now: float) -> None:
        """Keep a command, and the order of its lane, until it can be repeated."""
        if item.lane is item and code in ("MOVED", "ASK") and self.map is not None:
            item.lane = redirection(text, None)[0]  # it has a key that the caller did not name
            if item.lane in self._lanes:
                self._lanes[item.lane].parked.append(item)
                return
        trouble = self._lanes.get(item.lane)
        if trouble is None:
            trouble = self._open(item.lane, link)
            trouble.waiting += 1
        asked = None
        if code == "NOSCRIPT":
            item.loads += 1
            self._load(link, item, now)
        elif code in ("MOVED", "ASK") and self.map is not None:
            slot, target = redirection(text, link.server.address if link.server else None)
            if code == "ASK":
                asked = target
            elif self.map.owners[slot] == link.address:
                self.map.move(slot, target)
                self.changed = True
            self._know(target)
        self._map_is_old |= code in ("MOVED", "CLUSTERDOWN")
        trouble.fail(item, code, asked, now)

    def _open(self, lane: Lane, link: Link) -> BlockedLane:
        """From now on the order of a lane is kept here."""
        trouble = self._lanes[lane] = BlockedLane(link.unanswered(lane))
        trouble.parked.extend(link.take(lane))
        return trouble

    def _load(self, link: Link, item: PendingCommand, now: float) -> None:
        """Load the scripts, unless that has been done since the item was sent."""
        if item.sent >= link.loaded:
            link.loaded = now
            for packed in self._loads():
                link.put(link_command(Command(packed)))

    # Connections

    def opened(self, address: Address | None, server: ServerInfo, now: float) -> Link | None:
        """A connection is open, its scripts are loaded. Returns None if it is no longer wanted."""
        link = self.links.get(address)
        if link is None:
            return None
        link.state, link.server, link.failures, link.reason = LinkState.UP, server, 0, ""
        link.retry = None
        link.used = now
        link.lacks = f"{server.lacks}: {CODE}" if server.lacks else ""
        if link.lacks:
            self._refuse(self._out_of_trouble(link.take_confirmed()), link.lacks)
        self.changed = True
        if server.slots is not None:
            self.set_map(server.slots, now)
            link.leaving = not self._needed(link)  # it has brought the map
        return link

    def refused(self, address: Address | None, reason: str, now: float) -> None:
        """Connecting failed: refuse what waits for it, and retry later."""
        link = self.links.get(address)
        if link is None:
            return
        link.state, link.reason = LinkState.DOWN, reason
        shortest, longest = BACKOFF_SECONDS
        pause = min(shortest * 2.0**link.failures, longest)
        link.failures = min(link.failures + 1, 16)
        link.retry = now + pause * self._jitter()
        self._drop(link)
        self.changed = True

    def lost(self, link: Link, reason: str, now: float, *, hung: bool = False) -> None:
        """A connection broke or missed a deadline: make another, if idle with the next command."""
        self.closing.append(link)
        quiet = link.idle and not link.leaving
        done, unanswered, unwritten = link.lost()
        link.state, link.reason = LinkState.CONNECTING, reason
        link.retry = now + IDLE_SECONDS if quiet else now
        link.leaving = False
        self.changed = True
        held = [item for item in done if not self._is_unknown(item, reason, hung)]
        again = [item for item in unanswered if not self._is_over(item, reason, hung)]
        link.queue.extend(self._before_trouble(held))
        link.queue.extend(self._out_of_trouble([*again, *unwritten]))
        if hung:
            link.state = LinkState.DOWN
            self._drop(link)

    def _is_over(self, item: PendingCommand, reason: str, hung: bool) -> bool:
        """Answer an item that was under way, unless it may be sent a second time."""
        if self._lanes and (hung or item.repeated or not item.command.repeatable):
            self._passed(item, done=True)
        return self._is_unknown(item, reason, hung)

    def _is_unknown(self, item: PendingCommand, reason: str, hung: bool) -> bool:
        """As `_is_over`, for a command that no lane waits for."""
        if item.command.repeatable and not item.repeated and not hung:
            item.repeated = True
            return False
        self._settle(item, unknown(reason))
        return True

    def _before_trouble(self, items: list[PendingCommand]) -> list[PendingCommand]:
        """Executed, unconfirmed commands: those of lanes that are not blocked."""
        others: list[PendingCommand] = []
        for item in reversed(items):
            trouble = self._lanes.get(item.lane)
            if trouble is None:
                others.append(item)
            else:
                trouble.first(item)
        others.reverse()
        return others

    def _out_of_trouble(self, items: list[PendingCommand]) -> list[PendingCommand]:
        """Commands of lanes that are not blocked; the others wait in their lane."""
        others: list[PendingCommand] = []
        for item in items:
            trouble = self._lanes.get(item.lane)
            if trouble is None:
                others.append(item)
            else:
                trouble.again(item)
        return others

    def _drop(self, link: Link) -> None:
        """Refuse commands that wait for a connection that failed."""
        *_, waiting = link.lost()
        self._refuse(self._out_of_trouble(waiting), link.reason)

    def renew(self, address: Address | None) -> None:
        """Close a connection after what is under way on it, and make another."""
        link = self.links.get(address)
        if link is None:
            return
        if link.state is LinkState.UP:
            link.leaving = True
        elif link.retry is not None:
            link.retry = 0.0

    def wake(self, address: Address | None) -> None:
        """Another connection to a server was made: one that waits for its next attempt can, too."""
        link = self.links.get(address)
        if link is not None and link.state is not LinkState.UP and link.retry is not None:
            link.retry = 0.0

    # The map

    def set_map(self, found: SlotMap, now: float) -> None:
        """Apply a new map. O(slots + commands in flight)."""
        self._map_asked, self._map_is_old = now, False
        if self.map is None:
            for link in self.links.values():
                self._place(item for item in link.queue if isinstance(item, PendingCommand))
        elif not found.news(self.map):
            return
        self.map = found
        self.changed = True
        for address in found.primaries:
            self._know(address)
        for link in list(self.links.values()):
            self._follow(link)

    def doubt_map(self) -> None:
        """Request the map again."""
        self._map_is_old = self.map is not None

    def _know(self, address: Address | None) -> None:
        if address in self.links:
            return
        link = self.links[address] = Link(address)
        if self._replicas:
            wait_ms = max(1, round(self._answer_seconds * WAIT_SHARE * 1000))
            own_tag, done = partial(self._own_tag, link), partial(self._confirmed, link)
            link.confirmation = Confirmation(self._replicas, wait_ms, own_tag, done)

    def _own_tag(self, link: Link, number: int) -> str:
        """A tag whose slot is a link's by the map, another one for each number."""
        return TAGS[0] if self.map is None else self.map.tag(link.address, number)

    def _follow(self, link: Link) -> None:
        """Keep the order of lanes that now belong to another server than the one under way."""
        for item in list(link.sent):
            if self._elsewhere(item, link):
                self._open(item.lane, link)
        moved = [item for item in link.queue if self._elsewhere(item, link)]
        if moved:
            link.queue = deque(item for item in link.queue if item not in moved)
            for item in moved:
                self._route(item)  # type: ignore[arg-type]

    def _elsewhere(self, item: PendingCommand | LinkCommand, link: Link) -> bool:
        """Whether an item that is in no lane in trouble is on another link than its owner's."""
        if isinstance(item, LinkCommand) or item.lane in self._lanes:
            return False
        return self._owner(item) is not link

    def _wants_map(self) -> bool:
        """Whether the map may have changed."""
        assert self.map is not None
        links = (self.links.get(address) for address in self.map.primaries)
        away = any(link is None or link.state is LinkState.DOWN for link in links)
        return self._map_is_old or not self.map.whole or away

    def _ask_map(self, now: float) -> None:
        self._map_asked = now
        link = next((link for link in self.links.values() if link.state is LinkState.UP), None)
        if link is None:
            self._know(None)
        else:
            link.put(LinkCommand(CLUSTER_SLOTS, partial(self._told_map, link)))

    def _told_map(self, link: Link, reply: Any) -> None:
        if link.server is not None and isinstance(reply, list):
            self.set_map(SlotMap.read(reply, link.server.address), link.used)

    # Time

    def passed(self, now: float) -> None:
        """Handle what is due. O(links + blocked lanes)."""
        for link in list(self.links.values()):
            self._look_after(link, now)
        for lane, trouble in list(self._lanes.items()):
            self._go_on(lane, trouble, now)
        if self.map is not None and now >= self._map_asked + REFRESH_SECONDS and self._wants_map():
            self._ask_map(now)

    @property
    def steady(self) -> bool:
        """Whether nothing is due sooner than commands submitted now: no pause, no attempt."""
        if self._lanes or self._map_is_old or (self.map is not None and not self.map.whole):
            return False
        return all(link.state is LinkState.UP and not link.leaving for link in self.links.values())

    def due(self) -> float | None:
        """When to call `passed` at the latest; None for no such time."""
        times = [time for link in self.links.values() for time in self._times(link)]
        times += [time for trouble in self._lanes.values() for time in trouble.due()]
        if self.map is not None and self._wants_map():
            times.append(self._map_asked + REFRESH_SECONDS)
        return min(times, default=None)

    def _times(self, link: Link) -> Iterator[float]:
        if link.retry is not None and link.state is not LinkState.UP:
            yield link.retry
        if link.sent:
            yield link.sent[0].sent + self._answer_seconds
        elif link.state is LinkState.UP:
            yield 0.0 if link.leaving else link.used + IDLE_SECONDS
        if link.queue and isinstance(item := link.queue[0], PendingCommand):
            yield item.job.expires

    def _look_after(self, link: Link, now: float) -> None:
        if link.sent and now >= link.sent[0].sent + self._answer_seconds:
            self.lost(link, "no answer in time", now, hung=True)
        self.expire(link, now)
        if link.leaving and not link.sent:
            self._leave(link, now)
        elif link.state is LinkState.UP:
            self._keep(link, now)
        elif link.retry is not None and link.retry <= now:
            self._connect(link)

    def expire(self, link: Link, now: float) -> None:
        """Refuse what has waited too long; to be called before something is written."""
        while (
            link.queue
            and isinstance(item := link.queue[0], PendingCommand)
            and item.job.expires <= now
        ):
            link.queue.popleft()
            trouble = self._lanes.get(item.lane)
            self._passed(item, done=False)
            code = trouble.code if trouble else ""
            self._refuse([item], f"refused: {code}" if code else "waited too long to be sent")

    def _keep(self, link: Link, now: float) -> None:
        """Ping an idle connection; close an unneeded one."""
        if not link.idle or now < link.used + IDLE_SECONDS:
            return
        if self._needed(link):
            link.put(link_command(PING))
        elif now >= link.used + LINGER_SECONDS:
            self._leave(link, now)

    def _leave(self, link: Link, now: float) -> None:
        self.lost(link, link.reason or "to be made anew", now)

    def _connect(self, link: Link) -> None:
        """Connect a link, or forget an unneeded one."""
        others = (other for other in self.links.values() if other is not link)
        seed = link.address is None and all(other.state is LinkState.DOWN for other in others)
        if seed or self._needed(link) or not link.idle:
            link.retry = None
            self.opening.append(link.address)
        else:
            del self.links[link.address]

    def _needed(self, link: Link) -> bool:
        return self.map is None or link.address in self.map.primaries

    def _go_on(self, lane: Lane, trouble: BlockedLane, now: float) -> None:
        """Send a lane's next command again, when nothing of it is under way after its pause."""
        late = trouble.expired(now)
        self.refusals.update({trouble.code} if late else ())
        self._refuse(late, f"refused: {trouble.code}")
        if trouble.waiting or trouble.resume > now:
            return
        if trouble.passable:
            del self._lanes[lane]
            for item in (*trouble.failed, *trouble.parked):
                self._route(item)
            return
        # Where ASK sends us must be reached at once: later the slot may have moved on.
        asked = self.links.get(trouble.asked) if trouble.asked else None
        asking = asked is not None and asked.state is LinkState.UP and not asked.leaving
        if trouble.asked and not asking:
            if asked is not None:
                asked.wake()
            trouble.asked, trouble.resume = None, now + ASK_AGAIN_SECONDS
            return
        link = asked if asking else self._owner(trouble.failed[0])
        if link is None or link.state is LinkState.DOWN:
            del self._lanes[lane]
            reason = link.reason if link else "a slot without a server: CLUSTERDOWN"
            self._refuse((*trouble.failed, *trouble.parked), reason)
        else:
            link.put(trouble.take_first(), asking=asking)
