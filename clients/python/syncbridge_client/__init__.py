"""Client for SyncBridge servers, on Trio and asyncio.

    async with syncbridge_client.connect(url, token=token, device_id="phone") as session:
        await session.set("mood", "calm")

Reading order: `values`, `operations`, `queue`, `replica`, `conflicts` and `outbox` are the rules of
local updates, `presence` those of devices, and `voice` those of calls; `dialogue` is the protocol
without a socket; `transport`, `link`, `session` and `talking` put it on a network, `storage` on a
disk; `tokens` and `rest` are the HTTP side. Only the last seven wait.
"""

from syncbridge_client.conflicts import Policy, Resolution
from syncbridge_client.errors import (
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
    StorageError,
    UnsentUpdates,
    UpdateRefused,
)
from syncbridge_client.events import (
    Change,
    Closed,
    Conflict,
    Connected,
    Device,
    DeviceJoined,
    DeviceLeft,
    DeviceSaid,
    Disconnected,
    Draining,
    Event,
    EventsLost,
    Lost,
    LostUpdate,
    Notice,
    Refused,
    Reset,
    ServerError,
    StorageFailed,
    TokenExpiring,
    TokenFailed,
    TokenRenewed,
    VoiceEvent,
    VoiceLost,
)
from syncbridge_client.options import Options
from syncbridge_client.rest import RestClient
from syncbridge_client.rest.calls import CallChange, CallPage, CallSession, SessionManagerClient
from syncbridge_client.session import Session, Status, connect
from syncbridge_client.storage import OfflineStore, offline
from syncbridge_client.tokens import TokenSource
from syncbridge_client.update import Update
from syncbridge_client.values import MISSING
from syncbridge_client.voice import Participant, VoiceCall

try:
    from syncbridge_client._version import __version__ as __version__
except ModuleNotFoundError as missing:
    if missing.name != "syncbridge_client._version":
        raise
    __version__ = "0+unbuilt"  # the build writes that module

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
    "DeviceSaid",
    "Disconnected",
    "Draining",
    "Event",
    "EventsLost",
    "InvalidUpdate",
    "Lost",
    "LostUpdate",
    "Notice",
    "OfflineStore",
    "Options",
    "Participant",
    "Policy",
    "QueueFull",
    "Refused",
    "RequestFailed",
    "Reset",
    "Resolution",
    "RestClient",
    "ServerError",
    "Session",
    "SessionClosed",
    "SessionManagerClient",
    "Status",
    "StorageError",
    "StorageFailed",
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
    "offline",
]
