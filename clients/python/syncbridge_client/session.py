"""`connect`: a session that stays alive over any number of connections.

Structure. Entering `connect` opens a task group with one task, `_run`: it connects, serves one
connection until it ends, waits, and begins again. A connection is four tasks: one reads, one writes
(the only one that sends messages), one beats, one renews the token. The first that sees the end
notes why and cancels the other three. What the program calls only changes the `Dialogue` and wakes
the writer, so cancelling such a call never breaks a connection.
"""

import math
import ssl
import weakref
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

import anyio
from anyio.abc import TaskGroup

from syncbridge_client.backoff import Backoff
from syncbridge_client.catalogue import CloseCode
from syncbridge_client.dialogue import Dialogue
from syncbridge_client.errors import (
    ConnectFailed,
    RequestFailed,
    SessionClosed,
    UnsentUpdates,
    UpdateRefused,
)
from syncbridge_client.events import (
    Closed,
    Device,
    Disconnected,
    Event,
    Lost,
    StorageFailed,
    TokenFailed,
)
from syncbridge_client.feeds import ChangeFeed, EventFeed, Feed
from syncbridge_client.link import Link
from syncbridge_client.operations import Edit
from syncbridge_client.options import Hello, Options
from syncbridge_client.queue import Pending
from syncbridge_client.replica import Step
from syncbridge_client.storage import OfflineStore
from syncbridge_client.talking import Voice
from syncbridge_client.tokens import Refresh, TokenKeeper
from syncbridge_client.transport import split_url
from syncbridge_client.update import Update
from syncbridge_client.values import MISSING, copied

F = TypeVar("F", bound=Feed[Any])


class Status(Enum):
    """Where a session is."""

    CONNECTING = "connecting"
    ONLINE = "online"
    OFFLINE = "offline"
    CLOSED = "closed"


class Session:
    """One device in one session; made by `connect`. All methods belong to one event loop.

    Attributes:
        state: read-only live view: what the server has, with this device's own updates on top.
            Treat values inside it as read-only too.
        voice: calls of the user, see `Voice`.
    """

    def __init__(
        self,
        url: str,
        token: str | Refresh,
        hello: Hello,
        options: Options,
        ssl_context: ssl.SSLContext | None,
        store: OfflineStore | None = None,
    ) -> None:
        split_url(url)
        if store is not None and not isinstance(store, OfflineStore):
            raise TypeError("store: offline(path) is expected")
        self._options = options
        self._store = store
        self._restored = False
        self._dialogue = Dialogue(hello, options, self)
        self._keeper = TokenKeeper(token, options.request_timeout)
        self._link = Link(
            url,
            self._dialogue,
            self._keeper,
            options,
            ssl_context,
            online=lambda: self._move(Status.ONLINE),
            failed=self.event,
        )
        self._feeds: weakref.WeakSet[Feed[Any]] = weakref.WeakSet()
        self._updates: dict[str, Update] = {}
        self._replies: dict[str, tuple[anyio.Event, list[RequestFailed | None]]] = {}
        self._moved = anyio.Event()
        self._status = Status.CONNECTING
        self._end: SessionClosed | None = None
        self._cause: Exception | None = None
        self._unsent: list[tuple[str, ...]] = []
        self._group: TaskGroup | None = None
        self.state: Mapping[str, Any] = MappingProxyType(self._dialogue.replica.view)
        self.voice = Voice(self._dialogue, self._request, self._link.wake)

    # What is known

    @property
    def status(self) -> Status:
        """CONNECTING before the first connection, then ONLINE or OFFLINE, at last CLOSED."""
        return self._status

    @property
    def version(self) -> int:
        """Version of the session that this device has."""
        return self._dialogue.replica.version

    @property
    def epoch(self) -> str:
        """The lineage that `version` counts in; empty for a session that nobody wrote to."""
        return self._dialogue.replica.epoch

    @property
    def session_id(self) -> str:
        """The session's id; empty until the first connection when none was asked for."""
        welcome = self._dialogue.welcome
        return welcome.session_id if welcome is not None else ""

    @property
    def user_id(self) -> str:
        """Whose token this is; empty until the first connection."""
        welcome = self._dialogue.welcome
        return welcome.user_id if welcome is not None else ""

    @property
    def devices(self) -> tuple[Device, ...]:
        """The devices of the session, this one too, as far as is known."""
        return tuple(self._dialogue.presence.devices.values())

    @property
    def devices_total(self) -> int:
        """How many devices there are; `devices` has only some of those of a large session."""
        return self._dialogue.presence.total

    @property
    def pending(self) -> tuple[Update, ...]:
        """Updates that the server has not acknowledged, oldest first."""
        return tuple(self._updates.values())

    # Changing the state

    async def set(self, key: str, value: Any) -> Update:
        """Give a key a value. As all updates it shows at once and travels in the background.

        Raises:
            QueueFull: too much waits already. InvalidUpdate: not JSON, a bad key, too large.
            SessionClosed: the session is over.
        """
        return await self._submit({key: Edit("SET", copied(value))})

    async def say(self, **me: Any) -> None:
        """Say what is true of this device only while it is there, such as a cursor.

        The others see it as `me` in `devices`; None takes a key back. It is no update: never
        stored, the newest counts, and it is said again on each connection.

        Raises:
            InvalidUpdate: not JSON, or more than the server allows. SessionClosed: the session is
                over.
        """
        await anyio.lowlevel.checkpoint()
        self._require_open()
        self._dialogue.say(me)
        self._link.wake()

    async def resend(self, lost: Lost) -> list[Update]:
        """Make lost updates again; raises as `set`."""
        return [await self._submit(dict(update.edits)) for update in lost.updates]

    async def delete(self, key: str) -> Update:
        """Remove a key; raises as `set`."""
        return await self._submit({key: Edit("DELETE")})

    async def update(self, changes: Mapping[str, Any], delete: Iterable[str] = ()) -> Update:
        """Change several keys together, all or none; raises as `set`."""
        edits = {key: Edit("SET", copied(value)) for key, value in changes.items()}
        return await self._submit(edits | {key: Edit("DELETE") for key in delete})

    async def incr(self, key: str, by: int = 1) -> Update:
        """Add to an integer, exactly once; a missing key counts as 0. Raises as `set`."""
        return await self._submit({key: Edit("INCR", by)})

    async def append(self, key: str, item: Any) -> Update:
        """Add an item to a list, exactly once; a missing key counts as []. Raises as `set`."""
        return await self._submit({key: Edit("APPEND", copied(item))})

    async def merge(self, key: str, patch: Mapping[str, Any]) -> Update:
        """Merge into an object (RFC 7396: null removes a member). Raises as `set`."""
        return await self._submit({key: Edit("MERGE", copied(dict(patch)))})

    async def max(self, key: str, value: float) -> Update:
        """Raise a number to at least `value`. Raises as `set`."""
        return await self._submit({key: Edit("MAX", copied(value))})

    async def min(self, key: str, value: float) -> Update:
        """Lower a number to at most `value`. Raises as `set`."""
        return await self._submit({key: Edit("MIN", copied(value))})

    async def setnx(self, key: str, value: Any) -> Update:
        """Give a key a value unless it has one. Raises as `set`."""
        return await self._submit({key: Edit("SETNX", copied(value))})

    async def cas(self, key: str, expected: Any, value: Any) -> Update:
        """Give a key a value if it has the expected one, MISSING for none; else it is refused.

        Raises as `set`.
        """
        expected = expected if expected is MISSING else copied(expected)
        return await self._submit({key: Edit("CAS", copied(value), expected)})

    # Watching

    def changes(self) -> ChangeFeed:
        """Iterate over changes of `state` from now on, conflated: a slow reader skips values."""
        replica = self._dialogue.replica
        return self._feed(
            ChangeFeed(replica.view, lambda: replica.version, self._options.change_keys)
        )

    def events(self) -> EventFeed:
        """Iterate over events from now on; a slow reader is told how many it has missed."""
        return self._feed(EventFeed(self._options.event_count))

    async def synced(self, within: float = math.inf) -> None:
        """Wait until every update made so far is acknowledged or refused.

        Raises:
            SessionClosed: the session ended first. TimeoutError: not within `within` seconds.
        """
        with anyio.fail_after(within):
            for update in self.pending:
                await update.settled()
                if isinstance(update.error, SessionClosed):
                    raise update.error
        await anyio.lowlevel.checkpoint()

    async def stored(self) -> bool:
        """Wait until every update made so far is on disk; False when there is no store, or it has
        failed.
        """
        return self._store is not None and await self._store.stored()

    async def wait_closed(self) -> SessionClosed:
        """Wait until the session is over; returns how it ended."""
        while self._end is None:
            await self._moved.wait()
        return self._end

    async def online(self, within: float = math.inf) -> None:
        """Wait until there is a connection; raises SessionClosed and TimeoutError."""
        with anyio.fail_after(within):
            while self._status is not Status.ONLINE:
                self._require_open()
                await self._moved.wait()

    # Requests

    async def snapshot(self) -> dict[str, Any]:
        """Ask the server for the whole state; returns it with our pending updates on top.

        Raises:
            RequestFailed: refused, disconnected, or no answer in time. SessionClosed.
        """
        await self._request(self._dialogue.ask_snapshot)
        return dict(self.state)

    async def authenticate(self, token: str) -> None:
        """Use a new token: on the open connection at once, and for later ones.

        Raises:
            RequestFailed: the server does not take it, or no answer in time. SessionClosed.
        """
        self._require_open()
        if self._status is Status.ONLINE:
            await self._request(lambda: self._dialogue.ask_renewal(token))
        self._keeper.replace(token)

    async def _request(self, ask: Callable[[], str]) -> None:
        self._require_open()
        request_id = ask()
        done, answer = self._replies[request_id] = (anyio.Event(), [])
        self._link.wake()
        try:
            with anyio.fail_after(self._options.request_timeout):
                await done.wait()
        except TimeoutError:
            raise RequestFailed("timeout") from None
        finally:
            del self._replies[request_id]
            self._dialogue.forget(request_id)
        if answer[0] is not None:
            raise answer[0]

    async def _submit(self, edits: dict[str, Edit]) -> Update:
        await anyio.lowlevel.checkpoint()
        self._require_open()
        pending = self._dialogue.submit(edits)
        update = self._updates.setdefault(pending.id, Update(pending))
        self._link.wake()
        return update

    def _require_open(self) -> None:
        if self._end is not None:
            raise SessionClosed(self._end.code, self._end.reason)

    def _feed(self, feed: F) -> F:
        if self._end is not None:
            feed.close()
        self._feeds.add(feed)
        return feed

    # The dialogue's sink

    def changed(self, step: Step, own: bool) -> None:
        """See `Sink`."""
        if self._store is not None and not own:
            self._store.changed()
        if step:
            for feed in self._feeds:
                if isinstance(feed, ChangeFeed):
                    feed.push(step, own)

    def event(self, event: Event) -> None:
        """See `Sink`."""
        for feed in self._feeds:
            if isinstance(feed, EventFeed):
                feed.push(event)

    def finished(self, pending: Pending, error: UpdateRefused | None) -> None:
        """See `Sink`."""
        update = self._updates.pop(pending.id, None)
        if update is not None:
            update.finish(pending.version, error)

    def replied(self, request_id: str, error: RequestFailed | None) -> None:
        """See `Sink`."""
        reply = self._replies.get(request_id)
        if reply is not None:
            reply[1].append(error)
            reply[0].set()
        elif error is not None and self._status is Status.ONLINE:
            self._link.renewal_refused()
            self.event(TokenFailed(str(error)))

    def token_wanted(self) -> None:
        """See `Sink`."""
        self._link.renew_token()

    # Life

    def _move(self, status: Status) -> None:
        self._status = status
        self._moved.set()
        self._moved = anyio.Event()

    def _close(self, code: int, reason: str) -> None:
        if self._end is not None:
            return
        self._end = SessionClosed(code, reason)
        self._move(Status.CLOSED)
        self.event(Closed(code, reason))
        self._unsent = [update.keys for update in self.pending]
        for update in self.pending:
            update.finish(0, SessionClosed(code, reason))
        self._updates.clear()
        for feed in list(self._feeds):
            feed.close()

    async def _run(self) -> None:
        options = self._options
        backoff = Backoff(options.backoff_base, options.backoff_cap)
        down_at = anyio.current_time()
        while True:
            end = await self._link.serve()
            now = anyio.current_time()
            self._cause = end.cause
            if end.lived >= options.stable_after:
                backoff.reset()
                down_at = now
            if end.final:
                self._close(end.code, end.reason)
                return
            wait = backoff.next(end.retry_after, now - down_at)
            if self._status is Status.ONLINE:
                self._move(Status.OFFLINE)
            self.event(Disconnected(end.code, end.reason, wait))
            await anyio.sleep(wait)

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        try:
            if self._store is not None:
                await self._restore(self._store)
                self._group.start_soon(self._store.run)
            self._group.start_soon(self._run)
            await self._started()
        except BaseException as error:
            self._close(CloseCode.NORMAL, "not started")
            await self._leave(type(error), error, error.__traceback__)
            raise
        return self

    async def _restore(self, store: OfflineStore) -> None:
        """Bring back what was kept; updates that wait count as made by this session."""
        failed = lambda error: self.event(StorageFailed(error))  # noqa: E731
        self._restored = await store.open(self._dialogue, failed, self._link.wake)
        self._dialogue.belongs = store.belongs
        for pending in self._dialogue.replica.queue:
            self._updates[pending.id] = Update(pending)

    async def _started(self) -> None:
        if not self._restored:
            await self._connected()
        if self._status is Status.CONNECTING:
            self._move(Status.OFFLINE)

    async def _connected(self) -> None:
        with anyio.move_on_after(self._options.start_timeout):
            while self._status is Status.CONNECTING:
                await self._moved.wait()
        if self._end is not None:
            raise SessionClosed(self._end.code, self._end.reason) from self._cause
        if self._status is Status.CONNECTING and self._options.start_timeout > 0:
            raise ConnectFailed(f"not connected in time: {self._cause}") from self._cause

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if error is None:
            with anyio.move_on_after(self._options.close_timeout):
                await self._flushed()
        self._close(CloseCode.NORMAL, "left")
        handled = await self._leave(kind, error, trace)
        kept = self._store is not None and self._store.durable
        if error is None and self._unsent and not kept:
            raise UnsentUpdates(self._unsent)
        return handled

    async def _flushed(self) -> None:
        try:
            await self.synced()
        except SessionClosed:
            pass

    async def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """End the tasks. An error of the program comes out as it is, not inside a group."""
        assert self._group is not None
        self._group.cancel_scope.cancel()
        try:
            return await self._ended(kind, error, trace)
        finally:
            if self._store is not None:
                await self._store.close()

    async def _ended(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        assert self._group is not None
        try:
            return bool(await self._group.__aexit__(kind, error, trace))
        except BaseExceptionGroup as group:
            if group.exceptions == (error,):
                return False
            raise


def connect(
    url: str,
    *,
    token: str | Refresh,
    device_id: str,
    session_id: str | None = None,
    device_type: str = "",
    device_name: str = "",
    os_version: str = "",
    app_version: str = "",
    ssl_context: ssl.SSLContext | None = None,
    store: OfflineStore | None = None,
    **options: Any,
) -> Session:
    """A session to enter with `async with`; runs on Trio and on asyncio.

    Entering waits until the session is online. It then stays alive until it is left: a broken
    connection is replaced, and updates made meanwhile are sent when it is back.

    Args:
        url: of the server, such as `https://host` or `ws://host:8080/ws`; without a path, `/ws`.
        token: an access token, or an async callable that returns one and is called whenever a new
            one is needed, such as a `TokenSource`.
        device_id: this device's own name, the same each time. session_id: a UUID; None for the
            token's or else the user's own session.
        ssl_context: for wss; the system's trust store by default.
        store: `offline(path)` keeps updates and state in a file; entering then does not wait for a
            connection when the file has a state.
        options: fields of `Options`.

    Raises (on entering):
        ConnectFailed: not online within `start_timeout`. SessionClosed: refused for good.
        StorageError: the file of the store cannot be used.
        ValueError: the URL is none of a server. TypeError: an option that does not exist,
            or a token or store that is none. In these two cases `connect` itself raises.
    """
    hello = Hello(device_id, session_id, device_type, device_name, os_version, app_version)
    return Session(url, token, hello, Options(**options), ssl_context, store)
