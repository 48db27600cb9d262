"""The audit log: who asked for tokens, took them back, administered, handed over and removed; and
which state of somebody else an administrator has looked into or changed. A page that asks again
every few seconds is one look, and leaves one line.

One JSON object a line, apart from the other log lines: to a file, which is opened again when
somebody has moved it away, or to standard output. It has who asked (user and address), what for,
and how it ended, never a token.
"""

import logging
import logging.handlers
import os
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from syncbridge.identity import Role
from syncbridge.rates.looks import Looks
from syncbridge_server.settings import ConfigError

STANDARD_OUTPUT = "-"
ACTIONS: Mapping[tuple[str, str], str] = {
    ("POST", "/auth/token"): "token_issued",
    ("POST", "/auth/refresh"): "token_refreshed",
    ("POST", "/auth/revoke"): "token_revoked",
    ("POST", "/session/{session_id}/handoff"): "handoff_created",
    ("GET", "/session/{session_id}/handoff/{token}"): "handoff_redeemed",
    ("DELETE", "/session/{session_id}/device/{device_id}"): "device_removed",
    ("POST", "/voice/channels/{channel_id}/leave"): "call_left",
    ("POST", "/voice/channels/{channel_id}/mute"): "call_muted",
    ("POST", "/voice/channels/{channel_id}/end"): "call_ended",
    ("POST", "/voice/channels/{channel_id}/migrate"): "call_migrated",
}
OF_ADMINS: Mapping[tuple[str, str], str] = {
    ("GET", "/session/{session_id}"): "state_read",
    ("GET", "/session/{session_id}/devices"): "devices_read",
    ("POST", "/session/snapshot"): "state_replaced",
    ("POST", "/session/incremental"): "state_edited",
    ("POST", "/session/conflict/resolve"): "state_resolved",
    ("GET", "/voice/channels/{channel_id}"): "call_read",
    ("GET", "/voice/channels/{channel_id}/timeline"): "call_read",
    ("GET", "/voice/channels/{channel_id}/history"): "call_read",
    ("PUT", "/voice/channels/{channel_id}/config"): "call_configured",
    ("POST", "/voice/channels/{channel_id}/prewarm"): "call_prewarmed",
    ("GET", "/voice/channels/{channel_id}/recordings"): "recordings_read",
    ("GET", "/voice/channels/{channel_id}/recordings/{recording_id}/text"): "recording_read",
    ("GET", "/users/{user_id}/calls"): "calls_read",
}
"""What is written of administrators only: for users and services it is their work."""
ADMIN = "/admin/"
LOOK_PAUSE = 15.0
"""Seconds without a read after which the next one is another look: three turns of a page."""

LOOKS_KEPT = 4_096
_SECRET_PARTS = frozenset({"token"})


class Audit:
    """Writes the lines.

    Args:
        where: path of the file, or `-`; a file that cannot be written raises ConfigError.
    """

    def __init__(self, where: str) -> None:
        self._looks = Looks(LOOK_PAUSE, LOOKS_KEPT)
        try:
            if where != STANDARD_OUTPUT:  # readable by its owner only, when it is made here
                os.close(os.open(where, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
            self._handler: logging.Handler = (
                logging.StreamHandler(sys.stdout)
                if where == STANDARD_OUTPUT
                else logging.handlers.WatchedFileHandler(where, encoding="utf-8")
            )
        except OSError as error:
            raise ConfigError(f"SYNCBRIDGE_AUDIT_LOG: {where}: {error.strerror}") from None

    def request(self, scope: Mapping[str, Any], route: str, status: int, now: float) -> None:
        """Write a line for an answered request, if it is of a kind that is audited.

        Args:
            now: Unix seconds.
        """
        state, parts = scope["state"], scope.get("path_params", {})
        asked = scope["method"], route.replace(":path}", "}")
        action = ACTIONS.get(asked)
        looked = action is None and scope["method"] == "GET"
        if action is None and state.get("role") is Role.ADMIN:
            action = OF_ADMINS.get(asked)
        if action is None and not route.startswith(ADMIN):
            return
        what = {
            "action": action or f"{scope['method']} {route}",
            "user": state.get("user", ""),
            "client": state.get("client_address", ""),
            "status": status,
        }
        named = {name: value for name, value in parts.items() if name not in _SECRET_PARTS}
        named |= state.get("audited", {})
        if looked and not self._looks.begins((*what.values(), *named.items()), now):
            return
        at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
        request = {"request_id": state.get("request_id", "")}
        self._write({"time": at, "event": "audit", **what, **request, **named})

    def joined(self, user: str, client: str, session_id: str, device_id: str, now: float) -> None:
        """Write a line for a socket of an administrator in a session of somebody else.

        Args:
            now: Unix seconds.
        """
        what = {"action": "session_joined", "user": user, "client": client, "status": 200}
        named = {"session_id": session_id, "device_id": device_id}
        if self._looks.begins((*what.values(), *named.values()), now):
            at = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
            self._write({"time": at, "event": "audit", **what, **named})

    def _write(self, event: dict[str, Any]) -> None:
        text = msgspec.json.encode(event, enc_hook=str).decode()
        self._handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, text, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


def audited(scope: MutableMapping[str, Any], **what: object) -> None:
    """Say in the audit log what a request was about, and what else besides; `what` is hashable
    where the request is a look."""
    scope.setdefault("state", {}).setdefault("audited", {}).update(what)
