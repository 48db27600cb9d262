"""Applies token revocations to calls: removes users whose tokens were revoked.

Every node receives a revocation and does the same. In each call that the user may be in, it notes
that the user must be removed and kept out (`Channel.remove`). The note is stored with the channel
until the provider has removed the user, however many attempts that takes (`provider_tasks`). A user
who comes back with a token that the provider still accepts is removed again. Nodes do not conflict:
a removal noted since the revocation is not noted again, and later voice tokens are not affected.

The calls come from the index of the user's calls, which includes voice tokens. The index is written
with a delay, so it is read twice. The user is named by the revocation, had a socket closed by it,
or got a voice token with the revoked token from this node.
"""

from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.voice.channel import Channel
from syncbridge.voice.records import Participant
from syncbridge_server.auth.revocation import Rule
from syncbridge_server.isolation import of_record
from syncbridge_server.ports.evidence import CallEvidence
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.rooms.opening import NotLive

log = structlog.get_logger("voice")

AT_ONCE = 8
WAITING_MOST = 65_536
"""Maximum number of queued revocations; the oldest is dropped."""
SETTLED_SECONDS = 1.0
"""After this time, the index has every voice token that was issued before the revocation."""
RETRY_SECONDS = 1.0
APPLY_SECONDS = 0.5
NAMES_MOST = 65_536
USERS_MOST = 16


class Revocation(NamedTuple):
    """A revocation for one user.

    Attributes:
        kind, value: as in `auth.revocation.Rule`.
        at: Unix ms; tokens issued later are not revoked.
    """

    user_id: str
    kind: str
    value: str
    at: int


class PendingChannel(NamedTuple):
    """A channel from which the provider must still remove a user."""

    channel_id: str
    waddle_id: str


class Revoking:
    """Removes users from calls. `pending`: revocations that have not reached the calls yet."""

    def __init__(self, writer: ChannelWriter, evidence: CallEvidence) -> None:
        self._writer = writer
        self._evidence = evidence
        self._known: OrderedDict[str, dict[str, None]] = OrderedDict()
        self.pending: dict[Revocation, None] = {}
        self._working: set[Revocation] = set()
        self._idle = trio.lowlevel.ParkingLot()

    def note(self, user_id: str, names: Iterable[str]) -> None:
        """Remember that a user gets a voice token with these token, login and device ids. O(n)."""
        for name in names:
            users = self._known.pop(name, {})
            users.pop(user_id, None)
            users[user_id] = None
            if len(users) > USERS_MOST:
                del users[next(iter(users))]
            self._known[name] = users
            if len(self._known) > NAMES_MOST:
                self._known.popitem(last=False)

    def affected(self, rule: Rule, others: Iterable[str] = ()) -> list[Revocation]:
        """The revocations by user. `others`: users whose sockets the revocation closed."""
        named = rule.value if rule.kind == "user" else rule.user_id
        users = [named] if named else [*self._known.get(rule.value, ()), *others]
        at = round(rule.at * 1000)
        return [Revocation(user, rule.kind, rule.value, at) for user in dict.fromkeys(users)]

    def revoked(self, rule: Rule, others: Iterable[str] = ()) -> None:
        """Queue a revocation for the calls. Does not block. `others`: see `affected`."""
        for one in self.affected(rule, others):
            self.pending.pop(one, None)
            self.pending[one] = None
            if len(self.pending) > WAITING_MOST:
                del self.pending[next(iter(self.pending))]
        self._idle.unpark_all()

    async def run(self) -> None:
        """Apply queued revocations for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            one = next((one for one in self.pending if one not in self._working), None)
            if one is None:
                await self._idle.park()
                continue
            self._working.add(one)
            try:
                await self.apply(one)
                await trio.sleep(SETTLED_SECONDS)
                await self.apply(one)
                self.pending.pop(one, None)
            except StoreError as error:
                log.info("voice_revocation_waits", user_id=one.user_id, reason=error.detail)
                await trio.sleep(RETRY_SECONDS)
            finally:
                self._working.discard(one)

    async def apply_now(self, rule: Rule) -> list[PendingChannel]:
        """Apply a revocation at once; returns the channels where the provider must still act.

        What the store does not accept within APPLY_SECONDS is applied later.
        """
        found: list[PendingChannel] = []
        with trio.move_on_after(APPLY_SECONDS), suppress(StoreError):
            for one in self.affected(rule):
                found += await self.apply(one)
        return found

    async def apply(self, revocation: Revocation) -> list[PendingChannel]:
        """Apply a revocation; returns the channels where the provider must still remove the user.

        Raises StoreError.
        """
        since = revocation.at - self._writer.limits.removed_ms
        noted = await self._evidence.calls_of(revocation.user_id)
        found = [await self._apply(key, revocation) for key, at in noted if at >= since]
        return [one for one in found if one is not None]

    async def _apply(self, channel_id: str, revocation: Revocation) -> PendingChannel | None:
        try:
            if not concerned(await self._writer.read(channel_id), revocation):
                return None
            with suppress(NotLive):
                await self._writer.change(channel_id, partial(removed, revocation=revocation))
                log.info("voice_revoked", channel_id=channel_id, user_id=revocation.user_id)
            record = (await self._writer.read(channel_id)).record
        except StoreError as error:
            if not of_record(error):
                raise
            log.warning("voice_revocation_skips", channel_id=channel_id, reason=error.detail)
            return None
        if revocation.user_id not in record.unwelcome:
            return None
        return PendingChannel(record.public_id, record.waddle_id)


def removed(channel: Channel, now: int, *, revocation: Revocation) -> None:
    """Note that a user must be removed. Raises NotLive if nothing is to be noted.

    A removal noted since the revocation is not noted again.
    """
    kept_out = channel.record.removed.get(revocation.user_id, 0) - channel.limits.removed_ms
    if kept_out >= revocation.at or not concerned(channel, revocation):
        raise NotLive
    channel.remove(revocation.user_id, now)


def concerned(channel: Channel, revocation: Revocation) -> bool:
    """Whether the user may be in the call with a revoked token.

    That includes a user whose token is unknown.
    """
    participant = channel.record.participants.get(revocation.user_id)
    return channel.live and (participant is None or concerns(revocation, participant))


def concerns(revocation: Revocation, participant: Participant) -> bool:
    """Whether a participant's voice token was issued for a revoked token, login or device."""
    if participant.token_at > revocation.at:
        return False
    if revocation.kind == "device":
        return not participant.device_id or revocation.value in (
            participant.device_id,
            participant.moving_to,
        )
    return (
        revocation.kind == "user"
        or not participant.logins
        or revocation.value in participant.logins
    )
