"""The channel in a path: read, allowed, or refused in the words that clients are told."""

from starlette.requests import Request

from syncbridge import ids
from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.voice import grants
from syncbridge.voice.channel import Channel
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.recovery import recovery_of, told_of
from syncbridge_server.http.support.segments import OPEN, segment_after
from syncbridge_server.log import LEVELS, get_logger
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
        return voice.writer.channel_of(stored)
    granted = (grant.channel in (grants.ANY, channel_id) for grant in identity.voice)
    if not grants.unlimited(identity) and not any(granted):
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "the token has no grant for this channel")
    raise SyncBridgeError(ErrorCode.CHANNEL_NOT_FOUND, "this channel has had no call yet")


def required(voice: Voice | None) -> Voice:
    """Voice, where there is a provider. Raises PROVIDER_UNAVAILABLE."""
    if voice is None:
        raise SyncBridgeError(ErrorCode.PROVIDER_UNAVAILABLE, NO_VOICE, retry_after=NO_VOICE_RETRY)
    return voice


def told(error: ProviderError, channel_id: str) -> SyncBridgeError:
    """What a client is told of a provider's failure; the operator reads it in the log."""
    level = "error" if recovery_of(error).operator else "warning"
    _log.log(
        LEVELS[level],
        "voice_provider_failed",
        channel_id=channel_id,
        code=error.code.value,
        reason=error.detail,
    )
    return told_of(error)


def no_call() -> SyncBridgeError:
    """What is said of a channel in which nobody could be."""
    return SyncBridgeError(ErrorCode.NO_CALL, "there is no call in this channel")


def path_channel(request: Request) -> str:
    """The channel that the path names. Raises INVALID_FIELD for what is no id of one."""
    text = segment_after(request, OPEN, "channel_id")
    return ids.channel_id("channel_id", text)
