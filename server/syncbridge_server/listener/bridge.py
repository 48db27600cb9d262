"""The WebSocket route as an ASGI application, for other servers and for test clients.

The only engine is the sink, which speaks frames on a socket. So the bridge makes a socketpair,
gives one end to the sink, and plays the client of RFC 6455 on the other: an ASGI message becomes a
masked frame, a frame of the sink becomes an ASGI message. Back-pressure is the socketpair's: when
it is full, the bridge does not call `receive`. Pings and compression stay between the ASGI server
and its client. Close codes go through in both directions, except 1006 to the client: ASGI cannot
express it, so the client gets 1011.
"""

import socket
from http import HTTPStatus
from typing import Any

import trio
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Message, Ping, TextMessage
from wsproto.utilities import LocalProtocolError

from syncbridge_server.listener.contract import (
    ListenerConfig,
    Receive,
    Refusal,
    Scope,
    Send,
    SocketSink,
)
from syncbridge_server.listener.response import Response, agreement_headers, refusal_response
from syncbridge_server.listener.upgrade import (
    Agreement,
    HandshakeError,
    UpgradeRequest,
    collect,
    negotiate,
)

READ_BYTES = 65_536
CLOSE_SECONDS = 5.0
EMPTY_CLOSE = b"\x88\x80\0\0\0\0"  # wsproto would put 1000 in it
NOT_SENDABLE = frozenset({1005, 1006, 1015})
UPGRADE_REQUIRED = Refusal(426, "upgrade_required", "this is a WebSocket: send an upgrade")
FULL = Refusal(503, "overloaded", "too many connections; try again", 1)


async def explain_refusal(
    scope: Scope, receive: Receive, send: Send, sink: SocketSink, config: ListenerConfig
) -> None:
    """ASGI application for plain HTTP requests at the WebSocket path.

    A browser does not tell a page why a handshake was refused, so the page may ask here. The answer
    is the refusal that a handshake would get now, else 426.
    """
    verdict = _judge(scope, config.proxies.client(dict(scope)) or "unix", sink, config)
    refusal = verdict if isinstance(verdict, Refusal) else UPGRADE_REQUIRED
    status, headers, body = refusal_response(refusal, dict(scope["headers"]))
    if refusal.status == HTTPStatus.UPGRADE_REQUIRED and scope["http_version"] == "1.1":
        headers += [(b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def websocket_bridge(
    scope: Scope, receive: Receive, send: Send, sink: SocketSink, config: ListenerConfig
) -> None:
    """Serve one ASGI `websocket` connection through the sink until both sides have closed.

    Origin, tokens in the URL, subprotocol and admission are checked as on the native path; the path
    is not, because a router has chosen it.
    """
    await receive()  # websocket.connect
    asked = dict(scope["headers"])
    client = config.proxies.client(dict(scope)) or "unix"
    verdict = _judge(scope, client, sink, config)
    if isinstance(verdict, Agreement):
        try:
            near, far = socket.socketpair()
        except OSError:
            verdict = FULL
    if isinstance(verdict, Refusal):
        config.on_refused(verdict, client, "handshake")
        await _refuse(scope, send, refusal_response(verdict, asked, config.origins))
        return
    await send(_acceptance(verdict, asked.get(b"x-request-id", b"")))
    await _Bridge(receive, send, near).run(far, sink, verdict.encoding, client)


def _judge(
    scope: Scope, client: str, sink: SocketSink, config: ListenerConfig
) -> Agreement | Refusal:
    """Apply the shared policy to an ASGI scope; the server has checked version and key."""
    try:
        headers = collect(scope["headers"])
    except HandshakeError as error:
        return error.refusal
    headers.setdefault(b"sec-websocket-version", b"13")
    headers.pop(b"sec-websocket-extensions", None)  # compression is the ASGI server's
    headers[b"sec-websocket-protocol"] = ",".join(scope.get("subprotocols", [])).encode("latin-1")
    query: bytes = scope.get("query_string", b"")
    verdict = negotiate(UpgradeRequest(config.path.encode(), query, headers, True), config)
    if isinstance(verdict, Agreement):
        return sink.admit(client) or verdict
    return verdict


def _acceptance(agreement: Agreement, given_id: bytes) -> dict[str, Any]:
    headers = agreement_headers(agreement, given_id)
    return {
        "type": "websocket.accept",
        "subprotocol": agreement.subprotocol,
        "headers": [pair for pair in headers if pair[0] != b"sec-websocket-protocol"],
    }


async def _refuse(scope: Scope, send: Send, response: Response) -> None:
    """Answer with the problem document if the server can send one, else with its plain 403."""
    status, headers, body = response
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": ""})
        return
    kind = "websocket.http.response"
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


class _Bridge:
    """Both directions of one bridged connection."""

    def __init__(self, receive: Receive, send: Send, near: socket.socket) -> None:
        near.setblocking(False)
        self._receive = receive
        self._send = send
        self._stream = trio.SocketStream(trio.socket.from_stdlib_socket(near))
        self._writing = trio.StrictFIFOLock()
        self._frames = Connection(ConnectionType.CLIENT)
        self._parts: list[str | bytes | bytearray] = []

    async def run(self, far: socket.socket, sink: SocketSink, encoding: int, client: str) -> None:
        """Hand `far` to the sink and copy messages until the closing handshake is over."""
        far.setblocking(False)
        try:
            sink.adopt(
                far, encoding=encoding, client=client, initial=b"", bridged=True, deflate=False
            )
        except OSError:
            far.close()  # the outbound side reads the end and tells the client
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._outbound, nursery.cancel_scope)
                await self._inbound()
                nursery.cancel_scope.deadline = trio.current_time() + CLOSE_SECONDS
        finally:
            await trio.aclose_forcefully(self._stream)

    async def _inbound(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                await self._leave(message.get("code") or 1005)
                return
            text = message.get("text")
            if text is not None:
                await self._write(TextMessage(data=text))
            else:
                await self._write(BytesMessage(data=message.get("bytes") or b""))

    async def _leave(self, code: int) -> None:
        """Tell the sink how the client closed: a close frame, or for 1006 the end of the stream."""
        if code in (1005, 1015):
            await self._write_bytes(EMPTY_CLOSE)
        elif code != 1006:
            await self._write(CloseConnection(code=code))
        try:
            async with self._writing:
                await self._stream.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _write(self, event: Event) -> None:
        try:
            data = self._frames.send(event)
        except LocalProtocolError:
            return  # closed on the sink's side; the outbound direction tells the client
        await self._write_bytes(data)

    async def _write_bytes(self, data: bytes) -> None:
        """Write bytes; both directions do: messages, and pongs and close replies."""
        try:
            async with self._writing:
                await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the sink has closed

    async def _outbound(self, scope: trio.CancelScope) -> None:
        """Copy to the client until the sink closes; then the client has CLOSE_SECONDS to close."""
        code, reason = 1011, ""
        closing = False
        while not closing:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not data:
                break
            self._frames.receive_data(bytes(data))
            for event in self._frames.events():
                if isinstance(event, CloseConnection):
                    code, reason = event.code, event.reason or ""
                    await self._write(event.response())
                    closing = True
                else:
                    await self._forward(event)
        scope.deadline = min(scope.deadline, trio.current_time() + CLOSE_SECONDS)
        code = 1000 if code in NOT_SENDABLE else code
        await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _forward(self, event: Event) -> None:
        if isinstance(event, Ping):
            await self._write(event.response())
        elif isinstance(event, Message):
            self._parts.append(event.data)
            if event.message_finished:
                message = self._joined(isinstance(event, TextMessage))
                self._parts.clear()
                await self._send(message)

    def _joined(self, text: bool) -> dict[str, Any]:
        if text:
            return {"type": "websocket.send", "text": "".join(map(str, self._parts))}
        data = b"".join(part for part in self._parts if not isinstance(part, str))
        return {"type": "websocket.send", "bytes": data}
