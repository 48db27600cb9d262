"""One kept-alive HTTP connection to a server under test, for setting sessions up."""

import http.client
import json
from types import TracebackType
from typing import Any, Self

TIMEOUT = 30.0


class RequestFailed(RuntimeError):
    """A request got an unexpected answer."""


class Rest:
    """`with Rest(port, token) as rest: rest.ask("GET", path)`."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        """Status and document. Raises OSError and http.client.HTTPException."""
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        response = self._connection.getresponse()
        data = response.read()
        return response.status, json.loads(data) if data else None

    def create(self, session_id: str, user_id: str, state: bytes) -> dict[str, Any]:
        """POST a session's first snapshot; its answer. Raises RequestFailed."""
        head = {"session_id": session_id, "user_id": user_id, "device_id": "benchmark"}
        body = json.dumps(head).encode()[:-1] + b',"state_data":' + state + b"}"
        status, answer = self.ask("POST", "/session/snapshot", body)
        if status not in (200, 201):
            raise RequestFailed(f"a snapshot was answered with {status}: {answer}")
        created: dict[str, Any] = answer
        return created
