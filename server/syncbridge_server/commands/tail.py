"""`syncbridge tail SESSION`: what happens in a session, live, for whoever supports its user.

It joins the session as a device of its own, with an admin's token: the user's devices see it among
them, and it writes nothing. Values are what users wrote, so only their keys are shown unless
`--values` asks for more. It ends with the socket, or with Ctrl-C.
"""

import json
import secrets
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

import trio
import typer
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Event,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.utilities import RemoteProtocolError

from syncbridge.messages import MessageType
from syncbridge_server.commands.rest import DEFAULT_URL, Url, admin_token, given_token, printable
from syncbridge_server.listener.contract import SUBPROTOCOL_JSON

SECONDS = 10.0
SILENT_BEATS = 3
"""Heartbeats that may be missing before a server counts as gone."""
TOKEN_SECONDS = 86_400.0
SHOWN = ("device_id", "device_name", "status", "reason", "code", "message", "total", "channelId")
"""Members of a payload that are no values of the user's."""
_KINDS = {int(kind): kind.name.lower() for kind in MessageType}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def tail(
    session: Annotated[str, typer.Argument(help="Session id, a UUID.")],
    url: Url = DEFAULT_URL,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the messages as received.")
    ] = False,
    values: Annotated[
        bool, typer.Option(help="Show the values that were written, not only the keys.")
    ] = False,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many messages; 0: never.")] = 0,
) -> None:
    """Print what happens in a session from now on, one line for each message."""
    try:
        session = str(uuid.UUID(session))
    except ValueError:
        _fail("SESSION must be a UUID")
    token = admin_token(_fail, TOKEN_SECONDS)
    try:
        trio.run(_follow, url, session, token, as_json, values, count)
    except KeyboardInterrupt:
        raise typer.Exit from None


async def _follow(
    url: str, session: str, token: str, as_json: bool, values: bool, count: int
) -> None:
    async with await _connected(url) as stream:
        try:
            with trio.fail_after(SECONDS):
                socket = await Socket.open(stream, url)
        except (trio.TooSlowError, trio.BrokenResourceError, RemoteProtocolError) as error:
            why = type(error.__cause__ or error).__name__
            _fail(f"what answers there (--url) speaks no WebSocket: {why}")
        await socket.send(_auth(session, token))
        await follow(socket, as_json, values, count)


async def follow(socket: "Socket", as_json: bool, values: bool, count: int) -> None:
    """Print messages until `count`, or the socket's end, which ends the command."""
    told = 0
    async for text in socket.messages():
        message = json.loads(text)
        if message["type"] == MessageType.AUTH_FAILURE:
            _fail(f"refused: {message['payload'].get('message', '')}{given_token()}")
        beat = message.get("payload", {}).get("heartbeat_interval_ms")
        if beat is not None:
            socket.patience = max(SECONDS, SILENT_BEATS * beat / 1000)
        typer.echo(text if as_json else line_of(message, values))
        told += 1
        if told == count:
            return
    _fail(f"the socket was closed: {socket.ended}")


async def _connected(url: str) -> trio.abc.Stream:
    try:
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    except ValueError as error:
        _fail(f"--url: {error}")
    if not host or parts.scheme not in ("http", "https"):
        _fail("--url: http://host or https://host is expected")
    try:
        with trio.fail_after(SECONDS):
            if secure:
                context = ssl.create_default_context()
                return await trio.open_ssl_over_tcp_stream(host, port, ssl_context=context)
            return await trio.open_tcp_stream(host, port)
    except (OSError, ValueError, trio.TooSlowError) as error:
        where = f"{parts.scheme}://{parts.hostname}"
        _fail(f"nothing answers at {where} (--url): {type(error).__name__}")


def _auth(session: str, token: str) -> str:
    payload = {
        "token": token,
        "session_id": session,
        "device_id": f"support-{secrets.token_hex(4)}",
        "device_type": "support",
        "device_name": "syncbridge tail",
    }
    return json.dumps({"type": int(MessageType.AUTH), "payload": payload})


class Socket:
    """A WebSocket client.

    Attributes:
        ended: why it was closed. patience: seconds without a byte, also of a ping, after which it
            counts as closed.
    """

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._ws = WSConnection(ConnectionType.CLIENT)
        self.ended = ""
        self.patience = SECONDS

    @classmethod
    async def open(cls, stream: trio.abc.Stream, url: str) -> "Socket":
        """Shake hands; a refusal ends the command."""
        parts = urlsplit(url)
        self = cls(stream)
        target = f"{parts.path.rstrip('/')}/ws"
        request = Request(host=parts.netloc, target=target, subprotocols=[SUBPROTOCOL_JSON])
        await stream.send_all(self._ws.send(request))
        while True:
            for event in await self._received():
                if isinstance(event, RejectConnection):
                    _fail(f"no WebSocket at {target} (--url): status {event.status_code}")
                if isinstance(event, AcceptConnection):
                    return self
            if self.ended:
                _fail(f"no WebSocket at {target} (--url): {self.ended}")

    async def send(self, text: str) -> None:
        """One text message."""
        await self._stream.send_all(self._ws.send(TextMessage(data=text)))

    async def messages(self) -> AsyncIterator[str]:
        """Text messages until the end."""
        text = ""
        while not self.ended:
            for event in await self._received():
                if isinstance(event, TextMessage):
                    text += event.data
                    if event.message_finished:
                        yield text
                        text = ""
                elif isinstance(event, Ping):
                    await self._stream.send_all(self._ws.send(event.response()))
                elif isinstance(event, CloseConnection):
                    self.ended = f"{event.code} {event.reason or ''}".strip()

    async def _received(self) -> list[Event]:
        data = b""
        try:
            with trio.fail_after(self.patience):
                data = bytes(await self._stream.receive_some())
        except trio.TooSlowError:
            self.ended = f"nothing came for {self.patience:.0f} s"
        except trio.BrokenResourceError:
            pass
        if not data:
            self.ended = self.ended or "without a word"
            return []
        self._ws.receive_data(data)
        return list(self._ws.events())


def line_of(message: dict[str, Any], values: bool, now: float | None = None) -> str:
    """One message as a line; nothing in it can move the cursor of a terminal."""
    kind, payload = message["type"], message.get("payload", message)
    name = _KINDS.get(kind, str(kind)) if isinstance(kind, int) else str(kind)
    clock = time.strftime("%H:%M:%S", time.localtime(now))
    parts = [f"{clock} {name:18}", *_parts(payload, values)]
    if message.get("device_id"):
        parts.insert(1, f"by={message['device_id']}")
    return printable(" ".join(parts))


def _parts(payload: dict[str, Any], values: bool) -> Iterator[str]:
    """What a payload says, as name=value."""
    for name in SHOWN:
        if payload.get(name) not in (None, ""):
            yield f"{name}={payload[name]}"
    if "version" in payload:
        yield f"version={payload['version']}"
    for name in ("changes", "state_data"):
        changed = payload.get(name)
        if isinstance(changed, dict) and changed:
            shown = json.dumps(changed, ensure_ascii=False) if values else ",".join(changed)
            yield f"{name}={shown}"
    if payload.get("deleted_keys"):
        yield f"deleted={','.join(payload['deleted_keys'])}"
    if isinstance(payload.get("devices"), list):
        devices = [str(device.get("device_id")) for device in payload["devices"]]
        yield f"devices={','.join(devices)}"


def _fail(message: str) -> NoReturn:
    typer.echo(f"syncbridge tail: {message}", err=True)
    raise typer.Exit(1)
