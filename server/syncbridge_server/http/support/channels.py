"""The channel in a path: found, allowed, or refused in the words that clients are told.

A channel is an id in a waddle. The query says which waddle (`?waddle=`); without it, the caller's
grants decide, and of several channels none is taken.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta
from starlette.requests import Request

from syncbridge import ids
from syncbridge.errors import ErrorCode, StoreError, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.voice import grants
from syncbridge.voice.channel import Channel
from syncbridge.voice.naming import may_be_plain
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.recovery import recovery_of, told_of
from syncbridge_server.auth.audit import audited
from syncbridge_server.http.support.segments import OPEN, segment_after
from syncbridge_server.log import LEVELS, get_logger
from syncbridge_server.ports.channels import ChannelNames, Named
from syncbridge_server.voice.assembly import Voice
from syncbridge_server.voice.rooms.opening import OtherWaddle

NO_VOICE = "no voice provider is configured here: RTK_API_URL is not set"
NO_VOICE_RETRY = 60.0
BODY = 4_096
_log = get_logger("VOICE")
T = TypeVar("T")


class ChannelQuery(msgspec.Struct):
    """Query of a channel's routes.

    `waddle`: the channel's waddle. Without it, the caller's grants decide; 409 `ambiguous` names
    the `waddles` if there are several.
    """

    waddle: Annotated[str, Meta(extra_json_schema={"minLength": 1, "maxLength": 256})] = ""


async def reached(voice: Voice, identity: Identity, request: Request) -> Channel:
    """The channel of the path. Raises FORBIDDEN, AMBIGUOUS, CHANNEL_NOT_FOUND."""
    found = await existing(voice.names, identity, request)
    if found is None:
        raise SyncBridgeError(ErrorCode.CHANNEL_NOT_FOUND, "this channel has had no call yet")
    if isinstance(found.stored, StoreError):
        raise found.stored
    return voice.writer.channel_of(found.stored)


async def existing(names: ChannelNames, identity: Identity, request: Request) -> Named | None:
    """The channel of the path that is stored; None: there is none. Raises FORBIDDEN, AMBIGUOUS."""
    return _noted(request, only(await _visible(names, identity, request), stored=True))


async def known(names: ChannelNames, identity: Identity, request: Request) -> Named | None:
    """Likewise, also when only what it has left behind is stored."""
    found = await _visible(names, identity, request)
    kept = only(found, stored=True) or only([one for one in found if one.waddle_id])
    return _noted(request, kept)


def _noted(request: Request, found: Named | None) -> Named | None:
    """Say in the audit log which waddle's channel it is."""
    if found is not None and found.waddle_id:
        audited(request.scope, waddle=found.waddle_id)
    return found


async def _visible(names: ChannelNames, identity: Identity, request: Request) -> list[Named]:
    """The channels of the path's id that a caller may see. Raises FORBIDDEN."""
    channel_id, waddle_id = path_channel(request), query_waddle(request)
    waddles = grants.waddles_of(identity, channel_id)
    if waddle_id:
        audited(request.scope, waddle=waddle_id)
        grants.require(identity, waddle_id, channel_id)
        waddles = {waddle_id}
    elif waddles is not None and not waddles:
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "the token has no grant for this channel")
    found = await names.named(channel_id, waddles)
    seen = [one for one in found if grants.permissions_of(identity, one.waddle_id, channel_id)]
    return [one for one in seen if one.waddle_id == waddle_id] or seen if waddle_id else seen


def only(found: list[Named], *, stored: bool = False) -> Named | None:
    """The only one of some channels. Raises AMBIGUOUS.

    `stored`: of those that are stored; one that is damaged and nobody's only if there is no other.
    """
    if stored:
        found = [one for one in found if isinstance(one.stored, StoreError) or one.stored.revision]
        whose = [one for one in found if one.waddle_id or not isinstance(one.stored, StoreError)]
        found = whose or found
    if len(found) > 1:
        raise ambiguous(sorted({one.waddle_id for one in found if one.waddle_id}))
    return found[0] if found else None


def ambiguous(waddles: list[str]) -> SyncBridgeError:
    """What is said when several channels have the id."""
    return SyncBridgeError(
        ErrorCode.AMBIGUOUS, "waddle: several waddles have this channel; name one", waddles=waddles
    )


async def claimed(
    names: ChannelNames, waddle_id: str, channel_id: str, action: Callable[[str], Awaitable[T]]
) -> T:
    """Do something that opens or configures a waddle's channel, which gets a key if it has none."""
    try:
        return await action(await names.claim(waddle_id, channel_id))
    except OtherWaddle:  # A node of an earlier version opened the id meanwhile.
        return await action(await names.claim(waddle_id, channel_id, contested=True))


async def configured_key(names: ChannelNames, identity: Identity, request: Request) -> str:
    """The key of a channel that is about to be configured, stored or not.

    Raises AMBIGUOUS, and INVALID_FIELD where a waddle must be named.
    """
    channel_id, waddle_id = path_channel(request), query_waddle(request)
    if waddle_id:
        audited(request.scope, waddle=waddle_id)
        return await names.claim(waddle_id, channel_id)
    found = await existing(names, identity, request)
    if found is None and not may_be_plain(channel_id):
        raise SyncBridgeError(
            ErrorCode.INVALID_FIELD, "waddle: needed for this channel id", field="waddle"
        )
    return channel_id if found is None else found.key


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


def query_waddle(request: Request) -> str:
    """The waddle that the query names; empty: none. Raises INVALID_FIELD for no id of one."""
    text = request.query_params.get("waddle")
    return "" if text is None else ids.channel_id("waddle", text)
