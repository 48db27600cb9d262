"""The channel in a path: read, allowed, or refused in the words that clients are told."""

from starlette.requests import Request

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.ids import short_id
from syncbridge.voice import grants
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.recovery import recovery_of, told_of
from syncbridge_server.log import get_logger
from syncbridge_server.voice.assembly import Voice

NO_VOICE = "no voice provider is configured here: RTK_API_URL is not set"
NO_VOICE_RETRY = 60.0
BODY = 4_096
_log = get_logger("VOICE")


async def reached(voice: Voice, identity: Identity, channel_id: str) -> Channel:
    """A channel that a caller may see. Raises FORBIDDEN, CHANNEL_NOT_FOUND."""
    stored = await voice.channels.read(channel_id)
    if stored.revision:
        grants.require(identity, stored.record.waddle_id, channel_id)
        return Channel(stored.record, voice.desk.limits)
    granted = (grant.channel in (grants.ANY, channel_id) for grant in identity.voice)
    if not grants.unlimited(identity) and not any(granted):
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "the token has no grant for this channel")
    raise SyncBridgeError(ErrorCode.CHANNEL_NOT_FOUND, "there was no call in this channel yet")


def required(voice: Voice | None) -> Voice:
    """Voice, where there is a provider. Raises PROVIDER_UNAVAILABLE."""
    if voice is None:
        raise SyncBridgeError(ErrorCode.PROVIDER_UNAVAILABLE, NO_VOICE, retry_after=NO_VOICE_RETRY)
    return voice


def told(error: ProviderError, channel_id: str) -> SyncBridgeError:
    """What a client is told of a provider's failure; the operator reads it in the log."""
    write = _log.error if recovery_of(error).operator else _log.warning
    write("Provider failed", channel_id=channel_id, code=error.code.value, reason=error.detail)
    return told_of(error)


def no_call() -> SyncBridgeError:
    """What is said of a channel in which nobody could be."""
    return SyncBridgeError(ErrorCode.NO_CALL, "there is no call in this channel")


def channel_name(text: str, id_bytes: int) -> str:
    """A channel's id. Raises INVALID_FIELD; a slash would make it unreachable by path."""
    if "/" in text:
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, "channelId: no slash is expected", field="channelId"
        )
    return short_id("channelId", text, id_bytes)


def path_channel(request: Request, id_bytes: int) -> str:
    """The channel that the path names. Raises CHANNEL_NOT_FOUND for one that cannot be."""
    try:
        return channel_name(request.path_params["channel_id"], id_bytes)
    except SyncBridgeError as error:
        raise SyncBridgeError(ErrorCode.CHANNEL_NOT_FOUND, error.detail) from None
