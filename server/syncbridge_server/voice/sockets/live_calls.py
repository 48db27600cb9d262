"""This node's copy of the views of all live channels.

Theory of operation. At startup, and whenever messages between nodes may have been lost, the node
lists the live channels and reads them in pages. Between reads, the news of each write advance the
view of its channel by one revision (`syncbridge.voice.view`). If a revision is missing, the news
are not applied. The channel is read instead, in a batch, and the messages that its sockets missed
are derived from the old and the new view. News can arrive while a read is in progress; their
revisions are noted, and a channel that was read at an older revision is read again. So the copy
only moves forward and converges to the store.

Lookups by channel, user and device are O(1). A channel is known by its key here; `named` has those
of an id (`syncbridge.voice.naming`).
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from itertools import count, islice
from typing import Protocol, TypeVar, cast

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice import announcements, view
from syncbridge.voice.announcements import Message
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.stored import ChannelNews, Stored
from syncbridge.voice.view import View, ViewChange
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.isolation import Isolation
from syncbridge_server.ports.channels import Channels

log = structlog.get_logger("voice")

K = TypeVar("K")
PAGE = 256
MAX_CHANNELS = 65_536
RETRY_SECONDS = 0.5
LASTING = ("recording_ready", "recording_failed", "transcript_ready", "summary_ready")
"""Messages that are delivered even if other news were missed, because no view contains them."""


class Resyncs(Protocol):
    """Reports when messages may have been lost; implemented by `Bus`."""

    def on_resync(self, handler: Callable[[], None]) -> None: ...


class LiveCall:
    """A live channel in this node's copy.

    Attributes:
        channel_id: the channel's key. number: its id in the compiled parts.
    """

    __slots__ = ("channel_id", "number", "revision", "view")

    def __init__(self, channel_id: str, number: int, revision: int, shown: View) -> None:
        self.channel_id = channel_id
        self.number = number
        self.revision = revision
        self.view = shown

    @property
    def public_id(self) -> str:
        """The channel's id within its waddle."""
        return id_of_key(self.channel_id)

    @property
    def waddle_id(self) -> str:
        """The channel's waddle."""
        return self.view.head.waddle_id


Handler = Callable[[str, LiveCall | None, View | None, View | None, Sequence[Message]], None]
"""(channel id, call, old view, new view, messages for the sockets). Without a new view, the call is
the one that ended. The call is None for a channel that was not live."""


class LiveCalls:
    """The views of all live channels; see the module docstring.

    Attributes:
        calls: by channel id. numbers: by number.
        refused: number of channels that were rejected because the copy was full.
    """

    def __init__(
        self,
        channels: Channels,
        bus: Resyncs,
        *,
        max_channels: int = MAX_CHANNELS,
        isolation: Isolation | None = None,
    ) -> None:
        self._isolation = isolation or Isolation()
        self.calls: dict[str, LiveCall] = {}
        self.numbers: dict[int, LiveCall] = {}
        self.refused = 0
        self._channels = channels
        self._max = max_channels
        self._next = count(1)
        self._named: dict[str, dict[str, None]] = {}
        self._users: dict[str, dict[str, None]] = {}
        self._devices: dict[tuple[str, str], dict[str, None]] = {}
        self._handlers: list[Handler] = []
        self._wanted: dict[str, None] = {}
        self._walk = True
        self._heard: dict[str, int] | None = None
        self._work = AutoResetEvent()
        self._work.set()
        self._moved: dict[str, trio.Event] = {}
        self.loaded = trio.Event()
        channels.on_news(self.apply_news)
        bus.on_resync(self.resync)

    def on_change(self, handler: Handler) -> None:
        """Call `handler` for every change, after the copy is updated."""
        self._handlers.append(handler)

    # Lookups

    def calls_of(self, user_id: str) -> list[LiveCall]:
        """The calls that a user is in."""
        return [self.calls[channel_id] for channel_id in self._users.get(user_id, ())]

    def named(self, channel_id: str, waddle_id: str = "") -> list[LiveCall]:
        """The calls of an id, in the named waddle or in all. O(waddles with a call)."""
        calls = [self.calls[key] for key in self._named.get(channel_id, ())]
        return [call for call in calls if not waddle_id or call.waddle_id in ("", waddle_id)]

    def held_by(self, sid: str, device_id: str) -> str:
        """The latest channel whose call a device of a session holds; empty: none."""
        held = self._devices.get((sid, device_id))
        return next(reversed(held)) if held else ""

    def member(self, channel_id: str, user_id: str) -> view.ParticipantView | None:
        """A participant of a live call."""
        call = self.calls.get(channel_id)
        return call.view.participants.get(user_id) if call is not None else None

    async def caught_up(self, channel_id: str, revision: int, seconds: float) -> None:
        """Wait until the copy has reached a revision, for at most `seconds`."""
        with trio.move_on_after(seconds):
            while (call := self.calls.get(channel_id)) is None or call.revision < revision:
                await self._moved.setdefault(channel_id, trio.Event()).wait()

    # News

    def apply_news(self, news: ChannelNews) -> None:
        """Apply the news of a write by any node."""
        channel_id, revision = news.channel_id, news.revision
        if self._heard is not None:
            self._heard[channel_id] = max(revision, self._heard.get(channel_id, 0))
        call = self.calls.get(channel_id)
        if call is not None and revision <= call.revision:
            return
        events = [m for m in news.events if m.get("type") != view.VIEW]
        before = call.view if call is not None else None
        try:
            step = step_of(news.events)
            if call is None and (step is None or step.ended):
                self._tell(channel_id, None, None, None, events)
                return
            if not fits(call, revision, step):
                raise ValueError("news are missing")
            shown = view.applied(before, step) if step is not None else before
        except ValueError:
            lasting = [m for m in events if m.get("type") in LASTING]
            self._tell(channel_id, call, before, before, lasting)
            self._want([channel_id])
            return
        if step is not None and step.whole and before is not None:
            events = missed(channel_id, before, None) + events
        self._show(channel_id, revision, shown, events)

    def resync(self) -> None:
        """Read all live channels again because news may have been lost."""
        self._walk = True
        self._work.set()

    # Reads

    async def run(self) -> None:
        """Read all live channels, then read requested channels for ever."""
        while True:
            await self._work.wait()
            try:
                if self._walk:
                    await self._load()
                while self._wanted:
                    await self._read(list(islice(self._wanted, PAGE)))
                self.loaded.set()
            except StoreError as error:
                log.warning(
                    "voice_live_calls_behind", detail=error.detail, wanted=len(self._wanted)
                )
                self._work.set()
                await trio.sleep(RETRY_SECONDS)

    async def _load(self) -> None:
        """Read all live channels, and those of the copy that are no longer listed."""
        self._walk = False
        missing = dict.fromkeys(self.calls)
        live = cast("AsyncGenerator[list[str], None]", self._channels.live())
        try:
            async with aclosing(live) as pages:
                async for page in pages:
                    await self._read(page)
                    for channel_id in page:
                        missing.pop(channel_id, None)
        except StoreError:
            self._walk = True
            raise
        self._want(missing)

    async def _read(self, channel_ids: Sequence[str]) -> None:
        self._heard = {}
        try:
            found = await self._channels.read_many(channel_ids)
        finally:
            heard, self._heard = self._heard, None
        for channel_id in channel_ids:
            self._wanted.pop(channel_id, None)
        read = zip(channel_ids, found, strict=True)
        await self._isolation.each("board", read, partial(self._take, heard))

    def _take(self, heard_of: Mapping[str, int], stored: Stored) -> None:
        """Apply a channel that was read. `heard_of`: latest revisions in news during the read."""
        channel_id = stored.record.channel_id
        heard = heard_of.get(channel_id, 0)
        call = self.calls.get(channel_id)
        known = call.revision if call is not None else 0
        if known > stored.revision > 0:
            return
        if heard > stored.revision:
            self._want([channel_id])
            return
        before, shown = call.view if call is not None else None, view.of_record(stored.record)
        events = missed(channel_id, before, shown)
        self._show(channel_id, stored.revision, shown, events)

    # Parts

    def _want(self, channel_ids: Iterable[str]) -> None:
        self._wanted.update(dict.fromkeys(channel_ids))
        self._work.set()

    def _show(
        self, channel_id: str, revision: int, shown: View | None, events: Sequence[Message]
    ) -> None:
        """Replace the view of a channel and call the handlers."""
        call = self.calls.get(channel_id)
        before = call.view if call is not None else None
        if shown is None:
            if call is not None:
                del self.calls[channel_id], self.numbers[call.number]
                discard(self._named, call.public_id, channel_id)
        elif call is not None:
            call.revision, call.view = revision, shown
        elif len(self.calls) < self._max:
            call = LiveCall(channel_id, next(self._next), revision, shown)
            self.calls[channel_id] = self.numbers[call.number] = call
            self._named.setdefault(call.public_id, {})[channel_id] = None
        else:
            self.refused += 1
            return
        self._index(channel_id, before, shown)
        self._tell(channel_id, call, before, shown, events)
        moved = self._moved.pop(channel_id, None)
        if moved is not None:
            moved.set()

    def _index(self, channel_id: str, before: View | None, shown: View | None) -> None:
        old = before.participants if before is not None else {}
        new = shown.participants if shown is not None else {}
        for user_id, person in old.items():
            now = new.get(user_id)
            if now is person:
                continue
            if person.device_id:
                discard(self._devices, (person.sid, person.device_id), channel_id)
            if now is None:
                discard(self._users, user_id, channel_id)
        for user_id, person in new.items():
            if old.get(user_id) is not person:
                self._users.setdefault(user_id, {})[channel_id] = None
                if person.device_id:
                    held = self._devices.setdefault((person.sid, person.device_id), {})
                    held[channel_id] = None

    def _tell(
        self,
        channel_id: str,
        call: LiveCall | None,
        before: View | None,
        shown: View | None,
        events: Sequence[Message],
    ) -> None:
        for handler in self._handlers:
            try:
                handler(channel_id, call, before, shown, events)
            except Exception:
                log.exception("voice_handler_failed")


def discard(index: dict[K, dict[str, None]], key: K, channel_id: str) -> None:
    """Remove a channel from an index."""
    channels = index.get(key, {})
    channels.pop(channel_id, None)
    if not channels:
        index.pop(key, None)


def missed(channel_id: str, before: View | None, shown: View | None) -> list[Message]:
    """Messages to sockets for the difference between two views of the channel of a key."""
    either = shown or before
    waddle_id = either.head.waddle_id if either is not None else ""
    public_id = id_of_key(channel_id)
    told = view.missed_messages(public_id, before, shown)
    return [announcements.named(message, public_id, waddle_id) for message in told]


def step_of(events: Sequence[Message]) -> ViewChange | None:
    """The view change among the events of a write. Raises ValueError if it is invalid."""
    for message in events:
        if message.get("type") == view.VIEW:
            return view.from_message(message)
    return None


def fits(call: LiveCall | None, revision: int, step: ViewChange | None) -> bool:
    """Whether news can be applied to the current view."""
    if step is not None and (step.whole or step.ended):
        return True
    return call is not None and revision == call.revision + 1
