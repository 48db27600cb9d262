"""The table of (kind of token, route): who is let in where, and by what the others are refused.

`CALLERS` are the kinds of tokens, about session S, user `ann` and device `phone`. `ROWS` has at
least one request for each route; `EXPECTED` says for each kind of route what each caller gets:
`ok`, or the binding that refuses (see `REFUSALS`).
"""

import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from syncbridge.identity import Role

S = str(uuid.UUID(int=0x5E55_1040_8000_0000_0000_0000_0000_0001))
OTHER = str(uuid.UUID(int=0x07E2_1040_8000_0000_0000_0000_0000_0002))
WADDLE, CHANNEL = "waddle", "lobby"


class Caller(NamedTuple):
    """Whose token of which kind; `granted`: with a voice grant for the channel."""

    user: str
    role: Role = Role.USER
    session: str = ""
    device: str = ""
    granted: bool = False


CALLERS: dict[str, Caller | None] = {
    "nobody": None,
    "ann": Caller("ann", granted=True),
    "bob": Caller("bob"),
    "ann@S": Caller("ann", session=S, granted=True),
    "ann@other": Caller("ann", session=OTHER, granted=True),
    "ann:phone": Caller("ann", device="phone", granted=True),
    "ann:watch": Caller("ann", device="watch", granted=True),
    "bot": Caller("bot", Role.SERVICE),
    "bot@S": Caller("bot", Role.SERVICE, session=S),
    "bot@other": Caller("bot", Role.SERVICE, session=OTHER),
    "bot:watch": Caller("bot", Role.SERVICE, device="watch"),
    "root": Caller("root", Role.ADMIN),
    "root@S": Caller("root", Role.ADMIN, session=S),
    "root@other": Caller("root", Role.ADMIN, session=OTHER),
    "root:watch": Caller("root", Role.ADMIN, device="watch"),
    "viewer": Caller("eve", Role.VIEWER),
    "viewer@S": Caller("eve", Role.VIEWER, session=S),
}

REFUSALS = {
    "auth_required": "token",
    "insufficient_role": "role",
    "wrong_session": "session",
    "wrong_device": "device",
    "forbidden": "user",
}
"""Code of the problem document -> what refuses."""


def outcomes(text: str) -> dict[str, str]:
    """A column of outcomes, in the order of `CALLERS`."""
    return dict(zip(CALLERS, text.split(), strict=True))


EXPECTED: Mapping[str, Mapping[str, str]] = {
    "public": dict.fromkeys(CALLERS, "ok"),
    # About one session, which the path or the body names.
    "session": outcomes(
        "token ok user ok session ok ok  ok ok session ok  ok ok session ok  role role"
    ),
    # The same, done by or to the device `phone`.
    "device": outcomes(
        "token ok user ok session ok device  ok ok session device  ok ok session device  role role"
    ),
    # About all sessions of `ann`.
    "user": outcomes(
        "token ok user session session ok ok  ok session session ok  ok session session ok"
        " role role"
    ),
    # By the grants in the token.
    "voice": outcomes("token ok user ok ok ok ok  ok user user ok  ok user user ok  role role"),
    # Of all channels, those that the grants are for.
    "voice list": outcomes("token ok ok ok ok ok ok  ok ok ok ok  ok ok ok ok  role role"),
    "service": outcomes(
        "token role role role role role role  ok session session ok  ok session session ok"
        " role role"
    ),
    "mint": outcomes(
        "token role role role role role role  ok session session device"
        " ok session session device  role role"
    ),
    "mint admin": outcomes(
        "token role role role role role role  role session session device"
        " ok session session device  role role"
    ),
    # A token that is not the caller's own.
    "revoke token": outcomes(
        "token user user user user user user  ok session session device"
        " ok session session device  role role"
    ),
    # A device `phone`: for a user it is the user's own.
    "revoke device": outcomes(
        "token ok ok session session ok device  ok session session device"
        " ok session session device  role role"
    ),
    "read admin": outcomes(
        "token role role role role role role  role role role role  ok session session ok ok session"
    ),
    "admin link": outcomes(
        "token role role role role role role  role role role role"
        " ok session session device role role"
    ),
    "admin": outcomes(
        "token role role role role role role  role role role role  ok session session ok role role"
    ),
}


class Row(NamedTuple):
    """A request for a route. `body` gets the caller's name, so that effects can be told apart."""

    method: str
    route: str
    kind: str
    body: Callable[[str], Any] | None = None

    @property
    def path(self) -> str:
        """The route's path for session S, user `ann`, device `phone`, the channel, and so on."""
        path = self.route.replace(":path", "")
        for name, value in PARAMETERS.items():
            path = path.replace("{%s}" % name, value)
        return path


PARAMETERS = {
    "session_id": S,
    "user_id": "ann",
    "device_id": "phone",
    "channel_id": CHANNEL,
    "token": "never-given-out",
    "entry": "1-1",
    "endpoint_id": "none",
    "recording_id": "transcript-1",
    "id": "call-1",
}


def just(**members: Any) -> Callable[[str], Any]:
    """The same body for everybody."""
    return lambda caller: members


WRITE = {"session_id": S, "user_id": "ann", "device_id": "phone"}

ROWS = (
    # The writes come first: their effects show who was let in.
    Row(
        "POST",
        "/session/incremental",
        "device",
        lambda caller: WRITE | {"user_id": "", "base_version": 0, "changes": {caller: 1}},
    ),
    Row("GET", "/session/{session_id}", "session"),
    Row("POST", "/session/snapshot", "device", just(**WRITE, state_data={"a": 1})),
    Row(
        "POST",
        "/session/conflict/resolve",
        "device",
        just(
            session_id=S,
            device_id="phone",
            client_version=0,
            client_state={"a": 2},
            resolution_strategy="server_wins",
        ),
    ),
    Row("GET", "/session/{session_id}/devices", "session"),
    Row("DELETE", "/session/{session_id}/device/{device_id:path}", "device"),
    Row(
        "POST",
        "/session/{session_id}/handoff",
        "device",
        just(source_device="phone", target_device="tablet"),
    ),
    Row("GET", "/session/{session_id}/handoff/{token}", "session"),
    Row("GET", "/users/{user_id}/sessions", "user"),
    Row("GET", "/users/{user_id}/status", "user"),
    Row("POST", "/api/voice/token", "voice", just(waddleId=WADDLE, channelId=CHANNEL)),
    Row("GET", "/voice/channels", "voice list"),
    Row("GET", "/voice/channels/{channel_id}", "voice"),
    Row("GET", "/voice/channels/{channel_id}/timeline", "voice"),
    Row("GET", "/users/{user_id}/calls", "user"),
    Row("GET", "/voice/channels/{channel_id}/history", "voice"),
    Row("POST", "/voice/channels/{channel_id}/leave", "voice", just()),
    Row("POST", "/voice/channels/{channel_id}/leave", "voice", just(userId="ann")),
    Row("GET", "/voice/channels/{channel_id}/recordings", "service"),
    Row("GET", "/voice/channels/{channel_id}/recordings/{recording_id}/text", "service"),
    Row("GET", "/voice/channels/{channel_id}/config", "service"),
    Row("PUT", "/voice/channels/{channel_id}/config", "service", just()),
    Row("POST", "/voice/channels/{channel_id}/prewarm", "service", just(waddleId=WADDLE)),
    Row("POST", "/voice/channels/{channel_id}/migrate", "service"),
    Row("POST", "/voice/channels/{channel_id}/mute", "service", just(userId="ann")),
    Row("POST", "/voice/channels/{channel_id}/end", "service"),
    Row("POST", "/sessions", "service", just(id="call-1", type="SIP")),
    Row("GET", "/sessions", "service"),
    Row("GET", "/sessions/{id:path}/history", "service"),
    Row("PUT", "/sessions/{id:path}/state", "service", just(state="active")),
    Row("PUT", "/sessions/{id:path}/details", "service", just(details={"a": "b"})),
    Row("POST", "/sessions/{id:path}/events", "service", just(kind="ring")),
    Row("POST", "/sessions/{id:path}/heartbeat", "service"),
    Row("GET", "/sessions/{id:path}", "service"),
    Row("DELETE", "/sessions/{id:path}", "service"),
    Row("POST", "/auth/token", "mint", just(user_id="ann", session_id=S, device_id="phone")),
    Row("POST", "/auth/token", "mint admin", just(user_id="ann", role="admin")),
    Row("POST", "/auth/token", "mint admin", just(user_id="ann", role="viewer")),
    Row("POST", "/auth/refresh", "public", just(refresh_token="none")),
    Row("GET", "/admin/metrics/sessions", "read admin"),
    Row("GET", "/admin/metrics/connections", "read admin"),
    Row("GET", "/admin/metrics/snapshots", "read admin"),
    Row("GET", "/admin/metrics/all", "read admin"),
    Row("GET", "/admin/metrics/voice", "read admin"),
    Row("GET", "/admin/calls/export", "read admin"),
    Row("GET", "/events", "service"),
    Row("GET", "/admin/webhooks", "read admin"),
    Row("POST", "/admin/webhooks", "admin", just(url="https://example.com/hook")),
    Row("GET", "/admin/webhooks/{endpoint_id}", "read admin"),
    Row("PUT", "/admin/webhooks/{endpoint_id}", "admin", just(url="https://example.com/hook")),
    Row("POST", "/admin/webhooks/{endpoint_id}/rotate", "admin"),
    Row("GET", "/admin/webhooks/{endpoint_id}/dead-letters", "read admin"),
    Row("POST", "/admin/webhooks/{endpoint_id}/replay", "admin", just(since=0)),
    Row("POST", "/admin/webhooks/{endpoint_id}/test", "admin"),
    Row("DELETE", "/admin/webhooks/{endpoint_id}/dead-letters/{entry}", "admin"),
    Row("DELETE", "/admin/webhooks/{endpoint_id}", "admin"),
    Row("GET", "/admin/sessions", "read admin"),
    Row("GET", "/admin/connections", "read admin"),
    Row("GET", "/admin/voice/dead-letters", "read admin"),
    Row("POST", "/admin/voice/dead-letters/{entry}/replay", "admin"),
    Row("DELETE", "/admin/voice/dead-letters/{entry}", "admin"),
    Row("POST", "/admin/broadcast", "admin", just(message="hello")),
    Row("POST", "/admin/sign-in", "public", just(code="none")),
    Row("POST", "/admin/links", "admin link", just(role="viewer")),
    Row("GET", "/admin/me", "read admin"),
    Row("GET", "/admin/revocations", "read admin"),
    Row("GET", "/admin/configuration", "read admin"),
    Row("GET", "/admin/voice/channels", "read admin"),
    Row("GET", "/admin/voice/channels/{channel_id}", "read admin"),
    Row("GET", "/admin/voice/channels/{channel_id}/timeline", "read admin"),
    Row("GET", "/admin/users/{user_id}/calls", "read admin"),
    Row("POST", "/admin/connections/close", "admin", just(node="none", connection_id=1)),
    Row("GET", "/admin/sessions/{session_id}", "read admin"),
    Row("DELETE", "/admin/sessions/{session_id}", "admin"),
    Row("GET", "/", "public"),
    Row("GET", "/admin", "public"),
    Row("GET", "/admin/", "public"),
    Row("GET", "/assets/{name}", "public"),
    Row("GET", "/health", "public"),
    Row("GET", "/health/live", "public"),
    Row("GET", "/health/ready", "public"),
    Row("GET", "/metrics", "public"),
    Row("GET", "/openapi.json", "public"),
    Row("GET", "/schemas/messages.json", "public"),
    Row("GET", "/docs", "public"),
    Row("GET", "/docs/docs.js", "public"),
    Row("GET", "/docs/docs.css", "public"),
    Row("GET", "/docs/icon.svg", "public"),
    Row("GET", "/ws", "public"),
    Row("POST", "/rtk-webhook", "public", just()),
    Row("POST", "/voice/webhook", "public", just()),
    Row("POST", "/rtk/participant-joined", "public", just()),
    Row("POST", "/rtk/participant-left", "public", just()),
    Row("POST", "/rtk/session-ended", "public", just()),
    Row("POST", "/rtk/recording-ready", "public", just()),
    # The last ones: what they take back is gone.
    Row("POST", "/auth/revoke", "revoke token", just(jti="somebody-elses")),
    Row("POST", "/auth/revoke", "revoke device", just(device_id="phone")),
)
