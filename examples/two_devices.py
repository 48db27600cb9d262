"""Two devices of one user: what the phone sets, the laptop sees.

    .venv/bin/python examples/two_devices.py "$(.venv/bin/syncbridge token --user demo)"

Needs a server on 127.0.0.1:8080 (`make run`), or SYNCBRIDGE_URL=host:port. Uses trio and wsproto,
which the server brings with it; any WebSocket client does.
"""

import json
import os
import sys
from typing import Any

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

HOST, _, PORT = os.environ.get("SYNCBRIDGE_URL", "127.0.0.1:8080").rpartition(":")
STATE_UPDATE, AUTH, AUTH_SUCCESS = 5, 7, 8


class Device:
    """One WebSocket of one device; messages are JSON objects with an integer `type`."""

    def __init__(self, name: str, stream: trio.SocketStream) -> None:
        self.name = name
        self.session_id = ""
        self.version = 0
        self._stream = stream
        self._socket = WSConnection(ConnectionType.CLIENT)

    @classmethod
    async def connect(cls, name: str, token: str) -> "Device":
        device = cls(name, await trio.open_tcp_stream(HOST, int(PORT)))
        await device._write(Request(host=f"{HOST}:{PORT}", target="/ws"))
        await device._next(AcceptConnection)
        await device.send(AUTH, token=token, device_id=name, device_type="example")
        welcome = await device.receive(AUTH_SUCCESS)
        device.session_id, device.version = welcome["session_id"], welcome["version"]
        print(f"{name}: joined at version {device.version}, state {welcome['state_data']}")
        return device

    async def send(self, kind: int, **payload: Any) -> None:
        await self._write(TextMessage(json.dumps({"type": kind, "payload": payload})))

    async def receive(self, kind: int) -> dict[str, Any]:
        """The payload of the next message of one type; other messages are passed over."""
        while True:
            message = json.loads((await self._next(TextMessage)).data)
            if message["type"] == kind:
                return dict(message["payload"])

    async def close(self) -> None:
        await self._write(CloseConnection(code=1000))
        await self._stream.aclose()

    async def _write(self, event: Any) -> None:
        await self._stream.send_all(self._socket.send(event))

    async def _next(self, kind: type) -> Any:
        text = ""
        while True:
            for event in self._socket.events():
                if isinstance(event, TextMessage):
                    text += event.data
                    if not event.message_finished:
                        continue
                    event, text = TextMessage(text), ""
                if isinstance(event, kind):
                    return event
                if isinstance(event, CloseConnection):
                    sys.exit(f"{self.name}: closed, {event.code} {event.reason}")
            self._socket.receive_data(await self._stream.receive_some() or None)


async def main(token: str) -> None:
    with trio.fail_after(10):
        phone = await Device.connect("phone", token)
        laptop = await Device.connect("laptop", token)
        progress = 10 * (phone.version + 1)
        await phone.send(STATE_UPDATE, key="progress", value=progress, operation="SET")
        for device in (phone, laptop):
            update = await device.receive(STATE_UPDATE)
            print(f"{device.name}: version {update['version']}: {update['changes']}")
        print(f"the same over REST: curl -s http://{HOST}:{PORT}/session/{phone.session_id}")
        await phone.close()
        await laptop.close()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        trio.run(main, sys.argv[1])
    except OSError as error:
        sys.exit(f"no server on {HOST}:{PORT}; start one with `make run` ({error})")
