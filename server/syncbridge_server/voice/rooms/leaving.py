"""Removes a user from a call on a REST request of the user, a service or an admin.

The request is one negative for each of the user's connections. The provider is then asked to remove
the user. Success proves that the connections held before are gone; "no such user" is a second
negative. So the view does not wait for a webhook, and a connection made meanwhile stays.

Most providers cannot revoke an issued token. So a removed user who comes back without a new token
is removed again (`provider_tasks`), each time.
"""

from collections.abc import Callable
from functools import partial

from syncbridge.voice.channel import PROVIDER, Channel
from syncbridge.voice.evidence import Evidence, EvidenceOrigin, Left, Source, Teller
from syncbridge.voice.timeline import SENT_AWAY
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.rooms.opening import NotLive

Says = Callable[[str], Left]
"""Connection id -> evidence about it."""


class Leaving:
    """Removes users from calls."""

    def __init__(self, provider: VoiceProvider, writer: ChannelWriter) -> None:
        self._provider = provider
        self._writer = writer

    async def leave(
        self, channel_id: str, user_id: str, *, by: str = "", keep_out: bool = False
    ) -> bool:
        """Remove a user with all connections and free the seat; False if the user was not there.

        Args:
            by: the caller, if not the user.
            keep_out: the user needs a new token to come back.

        Raises NotLive, ProviderError (the user may still be in the call), StoreError.
        """
        began = self._writer.now()
        sessions, connections = await self._writer.change(
            channel_id, partial(asked_out, user_id=user_id, by=by, keep_out=keep_out)
        )
        removed = False
        for session_id in sessions:
            removed = await self._provider.kick(session_id, user_id) or removed
        rule = partial(put_out, user_id=user_id, connections=connections, removed=removed, at=began)
        await self._writer.change(channel_id, rule)
        return removed or bool(connections)


def asked_out(
    channel: Channel, now: int, *, user_id: str, by: str = "", keep_out: bool = False
) -> tuple[list[str], tuple[str, ...]]:
    """Note that a user is asked to leave; returns the sessions and the user's connections.

    Raises NotLive.
    """
    call, record = channel.call, channel.record
    if call is None or record.room is None:
        raise NotLive
    connections = call.connections(user_id)
    channel.unseat(user_id, now)
    if keep_out:
        channel.keep_out(user_id, now)
    origin = EvidenceOrigin(Teller.OPERATOR, by) if by else EvidenceOrigin(Teller.REPORT)
    said: list[Evidence] = [
        Left(
            generation=call.generation,
            at=now,
            source=Source.CLIENT,
            user_id=user_id,
            connection_id=connection,
            origin=origin,
        )
        for connection in connections
    ]
    if keep_out:
        channel.timeline.note(origin, SENT_AWAY, now, user_id=user_id)
    rooms = (record.room, record.previous)
    channel.apply(said, now)
    return [room.session_id for room in rooms if room is not None], connections


def put_out(
    channel: Channel,
    now: int,
    *,
    user_id: str,
    connections: tuple[str, ...],
    removed: bool,
    at: int,
) -> None:
    """Note that the provider removed a user, or that it did not know the user since `at`."""
    if channel.call is None:
        return
    generation = channel.call.generation
    told = connections if removed else ("",)
    said: list[Evidence] = [
        Left(
            generation=generation,
            at=now if removed else at,
            source=Source.WEBHOOK,
            user_id=user_id,
            connection_id=connection,
            origin=PROVIDER,
        )
        for connection in told
    ]
    channel.apply(said, now)
