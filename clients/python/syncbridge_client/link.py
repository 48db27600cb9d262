"""One connection from the TCP handshake to its end, and what its end means.

`Link.serve` is called again for each connection. It never raises for what a network or a server
does: it returns an `End`.
"""

import math
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import anyio

from syncbridge_client.catalogue import BY_WIRE, CloseCode, ErrorCode
from syncbridge_client.dialogue import Dialogue
from syncbridge_client.errors import RequestFailed
from syncbridge_client.events import TokenFailed
from syncbridge_client.options import Options
from syncbridge_client.tokens import NoToken, TokenKeeper, margin
from syncbridge_client.transport import ABNORMAL, ConnectionEnded, HandshakeRefused, WebSocket
from syncbridge_client.wire import Failure, ProtocolViolation

GOODBYE_SECONDS = 1.0
"""For the close frame, also when the program is being cancelled."""

SILENCE = 2.0
"""Heartbeat intervals without a byte from the server after which it is taken for dead."""

PASSING = frozenset({408, 425, 426, 429})
"""HTTP statuses of a refused handshake that pass."""

RENEWAL_RETRY = 5.0
"""Seconds between two attempts to renew a token on an open connection."""


@dataclass(frozen=True, slots=True)
class End:
    """How a connection ended. `final`: do not connect again. `lived`: seconds it was ready."""

    code: int
    reason: str
    final: bool = False
    retry_after: float = 0.0
    lived: float = 0.0
    cause: Exception | None = None


class Link:
    """The connections of one session, one after another.

    Args:
        online: called when a connection is ready.
        failed: told that a token could not be renewed.
    """

    def __init__(
        self,
        url: str,
        dialogue: Dialogue,
        keeper: TokenKeeper,
        options: Options,
        ssl_context: ssl.SSLContext | None,
        *,
        online: Callable[[], None],
        failed: Callable[[TokenFailed], None],
    ) -> None:
        self._url = url
        self._dialogue = dialogue
        self._keeper = keeper
        self._options = options
        self._ssl_context = ssl_context
        self._online = online
        self._failed = failed
        self._wake = anyio.Event()
        self._renew = anyio.Event()
        self._token_until = math.inf
        self._end: ConnectionEnded | None = None

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def renew_token(self) -> None:
        """The token must be renewed now."""
        self._token_until = -math.inf
        self._renew.set()

    def renewal_refused(self) -> None:
        """The server has not taken the new token: ask for another one in a while."""
        self._token_until = anyio.current_time() + RENEWAL_RETRY
        self._renew.set()

    async def serve(self) -> End:
        """One connection, from connecting to its end."""
        try:
            token = await self._keeper.current()
            with anyio.fail_after(self._options.connect_timeout):
                socket = await self._open()
        except NoToken as error:
            return End(CloseCode.AUTH_FAILED, str(error), error.final, cause=error)
        except TimeoutError as error:
            return End(0, "no connection in time", cause=error)
        except HandshakeRefused as error:
            final = error.explained and 400 <= error.status < 500 and error.status not in PASSING
            return End(0, str(error), final, error.retry_after, cause=error)
        except (OSError, ConnectionEnded) as error:
            return End(0, f"no connection: {type(error).__name__}", cause=error)
        return await self._converse(socket, token)

    async def _open(self) -> WebSocket:
        return await WebSocket.open(
            self._url,
            ssl_context=self._ssl_context,
            max_message=self._options.message_bytes,
            send_timeout=self._options.send_timeout,
        )

    async def _converse(self, socket: WebSocket, token: str) -> End:
        self._end = None
        ready_at = math.inf
        try:
            await self._join(socket, token)
            if self._dialogue.ready:
                ready_at = anyio.current_time()
                await self._work(socket)
        finally:
            self._dialogue.lost()
            await self._hang_up(socket)
        return self._meaning(self._end, max(0.0, anyio.current_time() - ready_at))

    async def _hang_up(self, socket: WebSocket) -> None:
        """Close; say goodbye when it is this side that leaves."""
        with anyio.CancelScope(shield=True), anyio.move_on_after(GOODBYE_SECONDS):
            if self._end is None:
                await socket.close(CloseCode.NORMAL)
        await socket.drop()

    async def _join(self, socket: WebSocket, token: str) -> None:
        """AUTH and its answer; afterwards the dialogue is ready, or `_end` says why not."""
        try:
            with anyio.fail_after(self._options.connect_timeout):
                await socket.send(self._dialogue.opening(token))
                while not self._dialogue.ready and self._dialogue.refusal is None:
                    await self._take(socket)
            with anyio.move_on_after(GOODBYE_SECONDS):
                while not self._dialogue.ready:  # refused: the close code says what it means
                    await self._take(socket)
            if not self._dialogue.ready:
                self._end = ConnectionEnded(refused_as(self._dialogue.refusal))
        except TimeoutError:
            self._end = ConnectionEnded(ABNORMAL, "no answer to AUTH in time")
        except ProtocolViolation as error:
            self._end = ConnectionEnded(ABNORMAL, f"not understood: {error}")
        except ConnectionEnded as error:
            self._end = error

    async def _work(self, socket: WebSocket) -> None:
        welcome = self._dialogue.welcome
        assert welcome is not None
        interval = max(0.1, welcome.heartbeat_interval_ms / 1000)
        socket.read_timeout = SILENCE * interval
        self._note_token()
        self._online()
        async with anyio.create_task_group() as group:

            async def until_end(task: Callable[[], Awaitable[None]]) -> None:
                try:
                    await task()
                except ConnectionEnded as error:
                    self._end = self._end or error
                except ProtocolViolation as error:
                    self._end = self._end or ConnectionEnded(ABNORMAL, f"not understood: {error}")
                group.cancel_scope.cancel()

            for task in (
                lambda: self._read(socket),
                lambda: self._write(socket),
                lambda: self._beat(interval),
                self._renew_tokens,
            ):
                group.start_soon(until_end, task)

    async def _take(self, socket: WebSocket) -> None:
        for data in await socket.receive():
            self._dialogue.receive(data, anyio.current_time())

    async def _read(self, socket: WebSocket) -> None:
        known = self._dialogue.welcome
        while True:
            await self._take(socket)
            if self._dialogue.welcome is not known:
                known = self._dialogue.welcome
                self._note_token()
            self.wake()

    async def _write(self, socket: WebSocket) -> None:
        while True:
            if self._dialogue.astray(anyio.current_time()):
                raise ConnectionEnded(ABNORMAL, "updates out of step")
            message = self._dialogue.outgoing(anyio.current_time())
            if message is not None:
                await socket.send(message)
                continue
            self._wake = anyio.Event()
            wait = self._dialogue.wait(anyio.current_time())
            with anyio.move_on_after(max(wait, MIN_WAIT)):
                await self._wake.wait()

    async def _beat(self, interval: float) -> None:
        while True:
            await anyio.sleep(interval)
            self._dialogue.beat()
            self.wake()

    def _note_token(self) -> None:
        """The server has said how long the present token is good."""
        left = self._dialogue.token_left
        self._token_until = anyio.current_time() + max(MIN_RENEWAL, left - margin(left))
        self._keeper.expire_at(self._token_until)
        self._renew.set()

    async def _renew_tokens(self) -> None:
        if not self._keeper.renewable:
            await anyio.sleep_forever()
        while True:
            left = self._token_until - anyio.current_time()
            if left > 0:
                self._renew = anyio.Event()
                with anyio.move_on_after(left):
                    await self._renew.wait()
                continue
            self._token_until = math.inf
            try:
                self._dialogue.ask_renewal(await self._keeper.renewed())
            except (NoToken, RequestFailed) as error:
                self._failed(TokenFailed(str(error)))
                if isinstance(error, NoToken) and error.final:
                    await anyio.sleep_forever()
                self._token_until = anyio.current_time() + RENEWAL_RETRY
            self.wake()

    def _meaning(self, ended: ConnectionEnded | None, lived: float) -> End:
        """What the end of a conversation says about the next attempt."""
        assert ended is not None
        refusal = self._dialogue.refusal
        code, reason = ended.code, ended.reason
        final = not reconnect(code)
        if refusal is not None:
            reason = f"{refusal.code}: {refusal.message}"
            known = BY_WIRE.get(refusal.code)
            if known is ErrorCode.TOKEN_EXPIRED:
                code, final = CloseCode.TOKEN_EXPIRED, False
            elif known is not None and known.retryable:
                final = False
        refused = final and code == CloseCode.AUTH_FAILED
        if code == CloseCode.TOKEN_EXPIRED or (refused and self._keeper.old):
            self._keeper.spent()
            final = not self._keeper.renewable
        return End(code, reason, final, self._dialogue.retry_after, lived, ended)


MIN_WAIT = 0.001
MIN_RENEWAL = 1.0
"""Seconds: a token is not renewed more often, however short it lives."""


FINAL = frozenset(int(code) for code in CloseCode if not code.should_reconnect)


def reconnect(code: int) -> bool:
    """Whether connecting again makes sense after a close code; unknown ones are worth a try."""
    return code not in FINAL


def refused_as(refusal: Failure | None) -> CloseCode:
    """The close code of a refusal that no close frame followed, such as this client's own."""
    forbidden = refusal is not None and refusal.code == ErrorCode.FORBIDDEN.wire
    return CloseCode.FORBIDDEN if forbidden else CloseCode.AUTH_FAILED
