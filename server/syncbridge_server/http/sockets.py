"""The WebSocket path for other ASGI servers, and for plain HTTP requests to it."""

from starlette.types import Receive, Scope, Send

from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.listener.bridge import explain_refusal, websocket_bridge
from syncbridge_server.listener.contract import ListenerConfig
from syncbridge_server.openapi.describe import Answer, Description


class WebSockets:
    """ASGI application of the WebSocket path, for connections outside of our listener.

    `GET` with `Upgrade: websocket` opens a WebSocket. Its messages are described by
    `/schemas/messages.json`.
    """

    description = Description(
        "Open a WebSocket",
        answers={101: Answer("The connection speaks WebSocket from here on.", None)},
        errors=(400, 403, 404, 426, 503),
        public=True,
        path={},
    )

    def __init__(self, gateway: Gateway, config: ListenerConfig) -> None:
        self._gateway = gateway
        self._config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await websocket_bridge(scope, receive, send, self._gateway, self._config)
        else:
            await explain_refusal(scope, receive, send, self._gateway, self._config)
