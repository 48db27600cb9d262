"""Client for SyncBridge servers, on Trio and asyncio.

    async with syncbridge.client.connect(url, token=token, device_id="phone") as session:
        await session.set("mood", "calm")

Reading order: `values`, `operations`, `queue`, `replica` and `conflicts` are the rules of local
updates, and `voice` those of calls; `dialogue` is the protocol without a socket; `transport`,
`link`, `session` and `talking` put it on a network; `rest`, `tokens` and `calls` are the HTTP side.
Only the last seven wait.
"""

from syncbridge.client.calls import CallChange, CallPage, CallSession, SessionManagerClient
from syncbridge.client.conflicts import Policy, Resolution
from syncbridge.client.errors import (
    ApiError,
    CallExists,
    CallNotFound,
    CallStateRefused,
    ClientError,
    ConnectFailed,
    InvalidUpdate,
    QueueFull,
    RequestFailed,
    SessionClosed,
    UnsentUpdates,
    UpdateRefused,
)
from syncbridge.client.events import (
    Change,
    Closed,
    Conflict,
    Connected,
    Device,
    DeviceJoined,
    DeviceLeft,
    Disconnected,
    Draining,
    Event,
    EventsLost,
    Notice,
    Refused,
    ServerError,
    TokenExpiring,
    TokenFailed,
    TokenRenewed,
    VoiceEvent,
    VoiceLost,
)
from syncbridge.client.options import Options
from syncbridge.client.rest import RestClient
from syncbridge.client.session import Session, Status, connect
from syncbridge.client.tokens import TokenSource
from syncbridge.client.update import Update
from syncbridge.client.values import MISSING
from syncbridge.client.voice import Participant, VoiceCall

__all__ = [
    "MISSING",
    "ApiError",
    "CallChange",
    "CallExists",
    "CallNotFound",
    "CallPage",
    "CallSession",
    "CallStateRefused",
    "Change",
    "ClientError",
    "Closed",
    "Conflict",
    "ConnectFailed",
    "Connected",
    "Device",
    "DeviceJoined",
    "DeviceLeft",
    "Disconnected",
    "Draining",
    "Event",
    "EventsLost",
    "InvalidUpdate",
    "Notice",
    "Options",
    "Participant",
    "Policy",
    "QueueFull",
    "Refused",
    "RequestFailed",
    "Resolution",
    "RestClient",
    "ServerError",
    "Session",
    "SessionClosed",
    "SessionManagerClient",
    "Status",
    "TokenExpiring",
    "TokenFailed",
    "TokenRenewed",
    "TokenSource",
    "UnsentUpdates",
    "Update",
    "UpdateRefused",
    "VoiceCall",
    "VoiceEvent",
    "VoiceLost",
    "connect",
]
