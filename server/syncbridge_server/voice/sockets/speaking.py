"""Distributes speaking states to all nodes with as few messages as possible.

Theory of operation. Each node throttles for its own listeners (`syncbridge_core.throttle`). A
change is sent at once, then at most one change for each participant in a window, and always the
last one. A report arrives at one node, from a client's socket or a webhook. That node shares its
sent changes with the other nodes, one notice for each batch, and they treat them as reports. So
each throttle sees all reports about a participant, and the latest one counts.

A message to ten thousand listeners is ten thousand writes. After sending, a node therefore pauses
in proportion to the number of writes, and frequent changes combine into one message. A participant
without a change in the last second is not delayed, and pending changes are sent with theirs. If
many such changes follow each other, they are delayed too, for a shorter time. The hub writes in
slices, so such a change overtakes the rest of the previous message. Small channels see no delay.

Only the node that received the latest report about a participant shares it; changes from other
nodes are not forwarded. Each node clears silent participants by itself. So the sharing node repeats
active speakers more often than that timeout. A lost message or a dead node is corrected within it.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import structlog
import trio

from syncbridge.integrity import UNREADABLE
from syncbridge.kernels import RESTED, Throttle
from syncbridge.voice.announcements import Message
from syncbridge_core.hub import KIND_SPEAKING
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.voice.sockets.live_calls import LiveCall, LiveCalls

log = structlog.get_logger("voice")

REPEAT_SECONDS = 0.8
"""Interval of repetitions to other nodes; less than half of the timeout that clears a speaker."""

FIRST_PER_MS = 100
"""Messages for each ms of delay of a rested participant; the writes take half of that time."""

BURST_MS = 300
"""Accumulated delay below which a rested participant is not delayed."""

FOLLOW_PER_MS = 40
MAX_FOLLOW_MS = 250
"""The same for all other changes, which limits them to a third of a core, and its maximum."""

Batch = list[tuple[str, bool]]


class SpeakingNotice(msgspec.Struct, array_like=True):
    """A notice to the other nodes: changes by channel."""

    node: str
    channels: list[tuple[str, Batch]]


class Tell(Protocol):
    """Sends a message to the channel's audience on this node."""

    def __call__(self, channel_id: str, message: Message, kind: int) -> int: ...


_decoder = msgspec.json.Decoder(SpeakingNotice)


class Speaking:
    """Speaking states of all channels.

    Args:
        tell: see `Tell`. share: sends bytes to all other nodes, if any.
        flush: sends messages that were queued outside of a tick.
        node: this node's name. monotonic: ms. throttle: decides what is sent when.
    """

    def __init__(
        self,
        live_calls: LiveCalls,
        tell: Tell,
        share: Callable[[bytes], None],
        flush: Callable[[], object],
        *,
        node: str,
        monotonic: Callable[[], int],
        throttle: Throttle | None = None,
    ) -> None:
        self._live_calls = live_calls
        self._tell = tell
        self._share = share
        self._flush = flush
        self._node = node
        self._monotonic = monotonic
        self._throttle = throttle or Throttle()
        self._report = self._throttle.report
        self._ours: dict[int, dict[str, bool]] = {}
        self._ready = 0
        self._first_at = -BURST_MS
        self._follow_at = 0
        self._due = AutoResetEvent()
        self._sleeps_until: int | None = 0
        self.shared = 0

    @property
    def held(self) -> int:
        """Number of participants in the throttle."""
        return self._throttle.held

    @property
    def refused(self) -> int:
        """Number of reports that were rejected because the throttle was full."""
        return self._throttle.refused

    # In

    def report(self, call: LiveCall, user_id: str, speaking: bool) -> None:
        """Take a report that this node received. `collect` sends the change."""
        ours = self._ours.get(call.number)
        if ours is None:
            ours = self._ours[call.number] = {}
        ours.setdefault(user_id, False)
        self._take(call, user_id, speaking, self._monotonic())
        self._wake()

    def _take(self, call: LiveCall, user_id: str, speaking: bool, now: int) -> None:
        ready = self._report(call.number, user_id, speaking, now)
        if ready > self._ready:
            self._ready = ready

    def report_now(self, channel_id: str, user_id: str, speaking: bool) -> None:
        """Take a provider's report outside of a tick; drop it if it contradicts the call."""
        call = self._live_calls.calls.get(channel_id)
        person = call.view.participants.get(user_id) if call is not None else None
        if call is None or person is None or (speaking and person.muted):
            return
        self.report(call, user_id, speaking)
        self.tick()
        self._flush()

    def receive(self, data: bytes) -> None:
        """Take a notice of another node."""
        try:
            shared = _decoder.decode(data)
        except UNREADABLE:
            log.warning("voice_speaking_unreadable", size=len(data))
            return
        if shared.node == self._node:
            return
        now = self._monotonic()
        for channel_id, batch in shared.channels:
            call = self._live_calls.calls.get(channel_id)
            if call is not None:
                self._apply(call, batch, now)
        self.tick()
        self._wake()
        self._flush()

    def _apply(self, call: LiveCall, batch: Batch, now: int) -> None:
        people, ours = call.view.participants, self._ours.get(call.number, {})
        for user_id, speaking in batch:
            person = people.get(user_id)
            if person is None or (speaking and person.muted):
                continue
            ours.pop(user_id, None)
            self._take(call, user_id, speaking, now)

    # Out

    def tick(self) -> None:
        """Send changes after messages were handled, unless a pause is in effect."""
        if self._ready and self._monotonic() >= self._may_at():
            self.collect()

    def _may_at(self) -> int:
        """The earliest time of the next message, in ms."""
        return self._first_at if self._ready == RESTED else self._follow_at

    def collect(self) -> None:
        """Send due changes: one message for each channel, one notice to the other nodes."""
        self._ready = 0
        now, sent = self._monotonic(), 0
        shared: list[tuple[str, Batch]] = []
        for number, batch in self._throttle.collect(now):
            call = self._live_calls.numbers.get(number)
            if call is None:
                self._throttle.drop(number)
                continue
            changes = [(text_of(user_id), speaking) for user_id, speaking in batch]
            message = speaking_update(call, changes)
            sent += self._tell(call.channel_id, message, KIND_SPEAKING)
            own = self._own(number, changes)
            if own:
                shared.append((call.channel_id, own))
        if shared:
            self._share_all(shared)
        self._first_at = max(now - BURST_MS, self._first_at) + sent // FIRST_PER_MS
        self._follow_at = max(self._follow_at, now + min(sent // FOLLOW_PER_MS, MAX_FOLLOW_MS))
        self._wake()

    def _own(self, number: int, changes: Batch) -> Batch:
        """The changes whose latest report came to this node."""
        ours = self._ours.get(number)
        if ours is None:
            return []
        own = [change for change in changes if change[0] in ours]
        for user_id, speaking in own:
            if speaking:
                ours[user_id] = True
            else:
                del ours[user_id]
        if not ours:
            del self._ours[number]
        return own

    def _share_all(self, channels: list[tuple[str, Batch]]) -> None:
        self.shared += 1
        self._share(msgspec.json.encode(SpeakingNotice(self._node, channels)))

    # What ends speaking

    def hush(self, call: LiveCall, user_ids: Sequence[str]) -> None:
        """Stop muted participants from speaking; throttled like any change."""
        now, ours = self._monotonic(), self._ours.get(call.number, {})
        for user_id in user_ids:
            ours.pop(user_id, None)  # every node detects muting itself
            self._take(call, user_id, False, now)
        if user_ids:
            self.tick()
            self._wake()

    def silence(self, call: LiveCall, user_ids: Sequence[str]) -> None:
        """Stop participants who left from speaking; every node detects that itself."""
        if not user_ids:
            return
        speakers = self.speakers(call)
        stopped = [(user_id, False) for user_id in user_ids if user_id in speakers]
        ours = self._ours.get(call.number, {})
        for user_id in user_ids:
            self._throttle.drop(call.number, user_id)
            ours.pop(user_id, None)
        if stopped:
            self._tell(call.channel_id, speaking_update(call, stopped), KIND_SPEAKING)

    def forget(self, call: LiveCall) -> None:
        """Drop the state of a call that ended, without a message."""
        self._throttle.drop(call.number)
        self._ours.pop(call.number, None)

    def speakers(self, call: LiveCall) -> set[str]:
        """The speakers, as last sent to the listeners of this node."""
        return {text_of(user_id) for user_id in self._throttle.snapshot(call.number)}

    # Time

    async def run(self) -> None:
        """Send throttled changes and clear silent speakers when due, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat)
            while True:
                self._sleeps_until = self._next()
                await self._sleep(self._sleeps_until)
                self._sleeps_until = 0
                due = self._next()  # a tick may have sent everything meanwhile
                if due is not None and self._monotonic() >= due:
                    self.collect()
                    self._flush()

    def _next(self) -> int | None:
        """When the next change is due, in ms; None: no change is pending."""
        due = self._throttle.next_due()
        if due is None:
            return None
        return max(due, self._may_at())

    async def _sleep(self, due: int | None) -> None:
        if due is None:
            await self._due.wait()
            return
        with trio.move_on_after(max(0, due - self._monotonic()) / 1000):
            await self._due.wait()

    def _wake(self) -> None:
        """Wake the timer if a change is due earlier than it sleeps."""
        until = self._sleeps_until
        if until == 0:
            return
        due = self._next()
        if due is not None and (until is None or due < until):
            self._due.set()

    async def _repeat(self) -> None:
        while True:
            await trio.sleep(REPEAT_SECONDS)
            speaking: list[tuple[str, Batch]] = []
            for number, ours in self._ours.items():
                call = self._live_calls.numbers.get(number)
                told = [(user_id, True) for user_id, said in ours.items() if said]
                if call is not None and told:
                    speaking.append((call.channel_id, told))
            if speaking:
                self._share_all(speaking)


def speaking_update(call: LiveCall, changes: Batch) -> Message:
    """The `speaking_update` message; a single change has the specification's shape."""
    message: Message = {
        "type": "speaking_update",
        "channelId": call.public_id,
        "waddleId": call.waddle_id,
    }
    if len(changes) == 1:
        user_id, speaking = changes[0]
        return message | {"userId": user_id, "isSpeaking": speaking}
    updates = [{"userId": user_id, "isSpeaking": speaking} for user_id, speaking in changes]
    return message | {"updates": updates}


def text_of(participant: str | bytes) -> str:
    """A participant as text; only text is reported here."""
    return participant if isinstance(participant, str) else participant.decode()
