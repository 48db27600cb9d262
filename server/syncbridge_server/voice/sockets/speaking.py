"""Who speaks: reports in, as few messages out as say it, on all nodes.

Theory of operation. Every node throttles for its own listeners (`syncbridge_core.throttle`): a
change goes out at once, then at most one for each participant in a window, and the last one always.
A report comes to one node, from a client's socket or the provider's webhook. What that node hands
out it shares with the others, in one notice a batch, and there it is a report like any other. So
all reports about a participant meet in each throttle, wherever they came from, and the latest
counts.

A message to ten thousand listeners is ten thousand writes. So what was handed out is followed by a
pause in proportion to it, in which changes of those who change all the time gather for one message.
Somebody who had not changed for a second is not kept waiting, and takes them along; only
where many such follow each other closely do they pause too, for a shorter time. The hub writes in
slices, so that such a change overtakes the rest of the message before. A small channel sees nothing
of all this.

Only the node that heard of a participant last shares: what came from another node is not passed on.
Silence clears on each node by itself; therefore who goes on speaking is repeated to the others,
more often than silence takes, and what a lost message or a dead node leaves behind is cleared or
mended within that time.
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
from syncbridge_server.voice.sockets.live_calls import LiveCall, LiveCalls

log = structlog.get_logger("voice")

REPEAT_SECONDS = 0.8
"""Between two repetitions to other nodes; less than half of what clears a speaker."""

FIRST_PER_MS = 100
"""Messages after which a rested participant waits for a ms: the writes take half of that."""

BURST_MS = 300
"""So much of such waiting is owed before one of them really waits."""

FOLLOW_PER_MS = 40
MAX_FOLLOW_MS = 250
"""The same for all other changes, so that they take a third of a core; and at most so long."""

Batch = list[tuple[str, bool]]


class SpeakingNotice(msgspec.Struct, array_like=True):
    """What one node tells the others: who changed, by channel."""

    node: str
    channels: list[tuple[str, Batch]]


class Tell(Protocol):
    """Sends a message to all here who hear of a channel."""

    def __call__(self, channel_id: str, message: Message, kind: int) -> int: ...


_decoder = msgspec.json.Decoder(SpeakingNotice)


class Speaking:
    """Speaking states of all channels.

    Args:
        tell: see `Tell`. share: gives bytes to all other nodes, if there are any.
        flush: sends what was queued outside of a tick.
        node: this node's name. monotonic: ms. throttle: the rule of what is said when.
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
        self._due = trio.Event()
        self._sleeps_until: int | None = 0
        self.shared = 0

    @property
    def held(self) -> int:
        """Participants of whom something is remembered."""
        return self._throttle.held

    @property
    def refused(self) -> int:
        """Reports that were not taken because too many participants or channels were held."""
        return self._throttle.refused

    # In

    def report(self, call: LiveCall, user_id: str, speaking: bool) -> None:
        """A participant of a call speaks or not, as this node hears. Goes out with `collect`."""
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
        """The same from outside of a tick, by the provider's word; what is not true is dropped."""
        call = self._live_calls.calls.get(channel_id)
        person = call.view.participants.get(user_id) if call is not None else None
        if call is None or person is None or (speaking and person.muted):
            return
        self.report(call, user_id, speaking)
        self.tick()
        self._flush()

    def receive(self, data: bytes) -> None:
        """What another node shares."""
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
        """Messages were handled: what they changed goes out, unless it is too soon for that."""
        if self._ready and self._monotonic() >= self._may_at():
            self.collect()

    def _may_at(self) -> int:
        """When the next message may go, in ms."""
        return self._first_at if self._ready == RESTED else self._follow_at

    def collect(self) -> None:
        """Hand out what is due: one message a channel, one notice for all others."""
        self._ready = 0
        now, sent = self._monotonic(), 0
        shared: list[tuple[str, Batch]] = []
        for number, batch in self._throttle.collect(now):
            call = self._live_calls.numbers.get(number)
            if call is None:
                self._throttle.drop(number)
                continue
            changes = [(text_of(user_id), speaking) for user_id, speaking in batch]
            message = speaking_update(call.channel_id, changes)
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
        """Those of the changes that this node heard of last."""
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
        """Who is muted does not speak; told as any change, so that muting makes no more of them."""
        now, ours = self._monotonic(), self._ours.get(call.number, {})
        for user_id in user_ids:
            ours.pop(user_id, None)  # every node sees for itself who is muted
            self._take(call, user_id, False, now)
        if user_ids:
            self.tick()
            self._wake()

    def silence(self, call: LiveCall, user_ids: Sequence[str]) -> None:
        """Who is gone does not speak; every node sees that for itself."""
        if not user_ids:
            return
        speakers = self.speakers(call)
        stopped = [(user_id, False) for user_id in user_ids if user_id in speakers]
        ours = self._ours.get(call.number, {})
        for user_id in user_ids:
            self._throttle.drop(call.number, user_id)
            ours.pop(user_id, None)
        if stopped:
            self._tell(call.channel_id, speaking_update(call.channel_id, stopped), KIND_SPEAKING)

    def forget(self, call: LiveCall) -> None:
        """The call has ended; that says it all."""
        self._throttle.drop(call.number)
        self._ours.pop(call.number, None)

    def speakers(self, call: LiveCall) -> set[str]:
        """Who speaks, as far as the listeners here were told."""
        return {text_of(user_id) for user_id in self._throttle.snapshot(call.number)}

    # Time

    async def run(self) -> None:
        """Close windows and clear the silent when it is time, for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._repeat)
            while True:
                self._due = trio.Event()
                self._sleeps_until = self._next()
                await self._sleep(self._sleeps_until)
                self._sleeps_until = 0
                due = self._next()  # anew: while this slept, all may have gone out with a tick
                if due is not None and self._monotonic() >= due:
                    self.collect()
                    self._flush()

    def _next(self) -> int | None:
        """When something is to be handed out, in ms; None: never by itself."""
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
        """Something may be due earlier than the timer thinks."""
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


def speaking_update(channel_id: str, changes: Batch) -> Message:
    """`speaking_update`: in the specification's shape when it is one change."""
    message: Message = {"type": "speaking_update", "channelId": channel_id}
    if len(changes) == 1:
        user_id, speaking = changes[0]
        return message | {"userId": user_id, "isSpeaking": speaking}
    updates = [{"userId": user_id, "isSpeaking": speaking} for user_id, speaking in changes]
    return message | {"updates": updates}


def text_of(participant: str | bytes) -> str:
    """A participant as it was reported here, which is as text."""
    return participant if isinstance(participant, str) else participant.decode()
