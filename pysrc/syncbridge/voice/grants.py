"""The permissions of a token's holder in a voice channel, for REST and sockets.

A token has a list of grants, each for a waddle and a channel; `*` matches any. Any matching grant
lets its holder listen; its permissions allow more. A token of role service or admin acts for users
and may do everything, unless it is bound to a session; then its grants apply as for a user.
"""

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, VoiceGrant
from syncbridge.voice.provider.records import Permissions

ANY = "*"
EVERYTHING = Permissions(can_speak=True, can_record=True, can_stream=True, can_use_video=True)


def matches(grant: VoiceGrant, waddle_id: str, channel_id: str) -> bool:
    """Whether a grant matches a channel of a waddle."""
    return grant.waddle in (ANY, waddle_id) and grant.channel in (ANY, channel_id)


def waddles_of(identity: Identity, channel_id: str) -> set[str] | None:
    """The waddles whose channel `channel_id` an identity may see; None: any waddle. O(grants)."""
    if unlimited(identity):
        return None
    found = {grant.waddle for grant in identity.voice if grant.channel in (ANY, channel_id)}
    return None if ANY in found else found


def unlimited(identity: Identity) -> bool:
    """Whether a token needs no grants."""
    return identity.privileged and not identity.session_id


def permissions_of(identity: Identity, waddle_id: str, channel_id: str) -> Permissions | None:
    """The combined permissions of all matching grants; None if no grant matches."""
    if unlimited(identity):
        return EVERYTHING
    granted = [grant for grant in identity.voice if matches(grant, waddle_id, channel_id)]
    if not granted:
        return None
    words = {word for grant in granted for word in grant.permissions}
    every = ANY in words
    return Permissions(
        can_speak=every or "speak" in words,
        can_record=every or "record" in words,
        can_stream=every or "stream" in words,
        can_use_video=every or "video" in words,
    )


def require(identity: Identity, waddle_id: str, channel_id: str) -> Permissions:
    """The permissions of an identity. Raises FORBIDDEN if no grant matches."""
    permissions = permissions_of(identity, waddle_id, channel_id)
    if permissions is None:
        raise SyncBridgeError(ErrorCode.FORBIDDEN, "the token has no voice grant for this channel")
    return permissions
