"""What one endpoint is to be sent, in which order, and what becomes of failures. No I/O, no clock.

Theory of operation. Events of the log are offered in order. What belongs together (a session, a
voice channel, a call session) is a *lane*: one of its events is under way at a time, and the next
one follows when that was delivered. Lanes do not wait for each other. An event that belongs to
nothing is a lane of its own.

An event that fails is *held*: the caller stores it apart, so that the place in the log can move on,
and so are those that follow in its lane. It is tried again after pauses, for three days. Then it
becomes a dead letter, and its lane goes on.

When everything fails, it is the endpoint: after `DOWN_AFTER` failures without a success one event
at a time is tried, after the same pauses, and nothing else is taken; what is not sent waits in the
log. After three days of that the endpoint is disabled.

Times are Unix seconds.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from heapq import heappop, heappush

import msgspec

from syncbridge.events.batches import LANE
from syncbridge.events.cursor import Cursor
from syncbridge.events.kinds import Event
from syncbridge.events.retries import is_enough, pause
from syncbridge.voice.naming import qualified_key

DOWN_AFTER = 5
WINDOW = 512
"""Events of the log that are under way or wait, at most."""

HELD_MOST = 10_000
"""Held events of an endpoint; what fails or waits beyond that is a dead letter at once."""

CALL_SESSIONS = "call_session."


class Fate(Enum):
    """What becomes of an event that failed."""

    HELD = "held"
    DEAD = "dead"
    DISABLED = "disabled"
    """Held; and the endpoint has failed for too long."""


class _Call(msgspec.Struct):
    """Of the data of a call session's event, what it is about."""

    call_id: str


_call_of = msgspec.json.Decoder(_Call).decode


def lane_of(event: Event) -> str:
    """What an event belongs to; events of one lane are sent in order."""
    if event.session_id:
        return "s" + event.session_id
    if event.channel_id:
        return "c" + qualified_key(event.waddle_id, event.channel_id)
    if event.type.startswith(CALL_SESSIONS):
        return "k" + _call_of(event.data).call_id
    return "e" + event.id


class Item:
    """An event on its way.

    Attributes:
        places: in the log, several for a batch; none for one that was held already.
        entry: where it is held; empty: it is not. text: as it is sent; empty: to be read.
        failures, first, due: so far, when the first was, and when it is tried again.
    """

    __slots__ = ("due", "entry", "event_id", "failures", "first", "lane", "places", "text")

    def __init__(
        self,
        lane: str,
        places: Sequence[Cursor] = (),
        *,
        event_id: str = "",
        text: bytes = b"",
        entry: str = "",
        failures: int = 0,
        first: float = 0.0,
        due: float = 0.0,
    ) -> None:
        self.lane = lane
        self.places = places
        self.event_id = event_id
        self.text = text
        self.entry = entry
        self.failures = failures
        self.first = first
        self.due = due


class Delivery:
    """The events of one endpoint.

    Args:
        cursor: up to where all is delivered or held.

    Attributes:
        seen: the last place that was offered.
        failing_since: when everything began to fail; 0: something works.
        proven: the latest attempt has arrived, so that many may be under way.
    """

    def __init__(
        self, cursor: Cursor, draw: Callable[[], float], failing_since: float = 0.0
    ) -> None:
        self.seen = cursor
        self._draw = draw
        self._lanes: OrderedDict[str, deque[Item]] = OrderedDict()
        self._ready: deque[str] = deque()
        self._later: list[tuple[float, str]] = []
        self._busy: set[str] = set()
        self._window: OrderedDict[Cursor, Cursor] = OrderedDict()
        self._row = DOWN_AFTER if failing_since else 0
        self._probe_at = 0.0
        self._held: set[str] = set()
        self.failing_since = failing_since
        self.proven = False

    @property
    def down(self) -> bool:
        """Whether everything fails."""
        return self._row >= DOWN_AFTER

    @property
    def room(self) -> int:
        """How many events of the log may be offered. Something must be there to be tried."""
        if self.down:
            return int(not self._lanes)
        return WINDOW - len(self._window)

    @property
    def held(self) -> int:
        """How many events are held."""
        return len(self._held)

    @property
    def under_way(self) -> int:
        """Events that are being sent."""
        return len(self._busy)

    @property
    def cursor(self) -> Cursor:
        """Up to where all is delivered or held: before the first place where that is not so."""
        return next(iter(self._window.values()), self.seen)

    # What is to be sent

    def offer(self, place: Cursor, event: Event | None, text: bytes = b"") -> str:
        """The next event of the log; None when it is not wanted.

        Returns its lane if it is to be held there, as the one before it is; else "".
        """
        if event is None:
            self.seen = place
            return ""
        self.gather(place)
        item = Item(lane_of(event), (place,), event_id=event.id, text=text)
        first = self._enter(item)
        return item.lane if first.entry else ""

    def gather(self, place: Cursor) -> None:
        """The next event of the log will be offered with others, by `offer_batch`."""
        self._window[place], self.seen = self.seen, place

    def offer_batch(self, places: Sequence[Cursor], event_id: str, text: bytes) -> str:
        """Events that were gathered, as one. Returns as `offer` does."""
        item = Item(LANE, places, event_id=event_id, text=text)
        return item.lane if self._enter(item).entry else ""

    def load(self, item: Item) -> None:
        """An event that is held, in the order in which it was; one that is known is left.

        One that is new was asked for: where everything fails it is tried now.
        """
        if item.entry not in self._held:
            self._held.add(item.entry)
            self._enter(item)
            if self.down:
                self._probe_at = 0.0
                self._lanes.move_to_end(item.lane, last=False)

    def next(self, now: float) -> Item | None:
        """An event that may be sent now; it is under way from here on."""
        if self.down:
            return self._probe(now)
        while self._later and self._later[0][0] <= now:
            self._ready.append(heappop(self._later)[1])
        while self._ready:
            lane = self._ready.popleft()
            if lane in self._lanes and lane not in self._busy and self._lanes[lane][0].due <= now:
                self._busy.add(lane)
                return self._lanes[lane][0]
        return None

    def _probe(self, now: float) -> Item | None:
        """The one event that is tried while everything fails; the lanes take turns."""
        if self._busy or now < self._probe_at or not self._lanes:
            return None
        lane = next(iter(self._lanes))
        self._lanes.move_to_end(lane)
        self._busy.add(lane)
        return self._lanes[lane][0]

    def due(self) -> float | None:
        """When something may be sent next; None: nothing waits."""
        if self.down:
            return self._probe_at if self._lanes and not self._busy else None
        if self._ready:
            return 0.0
        return self._later[0][0] if self._later else None

    # What became of it

    def delivered(self, item: Item) -> None:
        """It has arrived: its lane goes on, and when everything has failed so far, everything."""
        was_down, self._row, self.failing_since = self.down, 0, 0.0
        self.proven = True
        self._done(item)
        if was_down:
            for lane, waiting in self._lanes.items():
                waiting[0].due = 0.0
                self._line_up(lane)

    def failed(self, item: Item, now: float, asked: float = 0.0) -> Fate:
        """It has not. When it is HELD or DISABLED and has no entry, the caller stores it."""
        self._busy.discard(item.lane)
        item.failures += 1
        item.first = item.first or now
        self.failing_since = self.failing_since or now
        self._row += 1
        self.proven = False
        item.due = now + pause(item.failures, self._draw(), asked)
        room = bool(item.entry) or self.held < HELD_MOST
        if self.down:
            self._probe_at = now + pause(self._row - DOWN_AFTER + 1, self._draw(), asked)
            if is_enough(self.failing_since, now):
                return Fate.DISABLED
        if not room or (is_enough(item.first, now) and not self.down):
            self._done(item)
            return Fate.DEAD
        self._line_up(item.lane)
        return Fate.HELD

    def to_hold(self, lane: str) -> Item | None:
        """The next event of a lane that is to be stored apart, because its first one failed."""
        waiting = self._lanes.get(lane)
        if not waiting or not (waiting[0].entry or waiting[0].failures):
            return None
        return next((item for item in waiting if not item.entry), None)

    def dropped(self, item: Item) -> bool:
        """Whether an event to be held is one too many: then it is forgotten, for a dead letter.

        Not so the first one of its lane, which may be under way: `failed` has judged it.
        """
        waiting = self._lanes[item.lane]
        if self.held < HELD_MOST or item is waiting[0]:
            return False
        waiting.remove(item)
        self._settle(item)
        return True

    def kept(self, item: Item, entry: str) -> bool:
        """It is held under a name: the log may go on. False: it has arrived meanwhile."""
        if item not in self._lanes.get(item.lane, ()):
            return False
        item.entry, item.text = entry, b""
        self._held.add(entry)
        self._settle(item)
        return True

    def given_back(self, item: Item) -> None:
        """It was not sent at all, for trouble of ours; it is sent again."""
        self._busy.discard(item.lane)
        self._line_up(item.lane)

    def _enter(self, item: Item) -> Item:
        """Add an event to its lane; returns the first one there."""
        waiting = self._lanes.setdefault(item.lane, deque())
        waiting.append(item)
        if len(waiting) == 1:
            self._line_up(item.lane)
        return waiting[0]

    def _line_up(self, lane: str) -> None:
        """A lane may be served when its first event is due."""
        due = self._lanes[lane][0].due
        if due:
            heappush(self._later, (due, lane))
        else:
            self._ready.append(lane)

    def _done(self, item: Item) -> None:
        self._busy.discard(item.lane)
        waiting = self._lanes[item.lane]
        waiting.popleft()
        if waiting:
            self._line_up(item.lane)
        else:
            del self._lanes[item.lane]
        self._held.discard(item.entry)
        self._settle(item)

    def _settle(self, item: Item) -> None:
        for place in item.places:
            self._window.pop(place, None)
