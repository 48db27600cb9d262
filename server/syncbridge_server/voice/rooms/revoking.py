"""Carries revocations of tokens on to the calls: whose tokens are taken back is removed from them.

Every node hears of a revocation, and does the same: it notes in each call that the user may be in
that the user is to be removed, and kept out (`Channel.remove`). That is written with the channel,
so it is pending there until the provider has done it, however often it has to be asked (`provider_tasks`);
and who comes back with what the provider still takes for a token is removed again. Nodes do not
get in each other's way: what has been noted since the revocation is not noted again, and a voice
token that was asked for after it is none of those that are meant.

Which calls: those of the index of a user's calls, in which voice tokens are noted too. It is
written a moment later, so it is read twice. Which user: named by the revocation, or one whose
socket it closed, or who got a voice token with it from this node.
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
"""Revocations that wait for the store; the oldest makes room."""
SETTLED_SECONDS = 1.0
"""After that a voice token that was issued before the revocation is in the index."""
RETRY_SECONDS = 1.0
APPLY_SECONDS = 0.5
NAMES_MOST = 65_536
USERS_MOST = 16


class Revocation(NamedTuple):
    """What was taken back from a user.

    Attributes:
        kind, value: as in `auth.revocation.Rule`. at: Unix ms; what was issued later is not meant.
    """

    user_id: str
    kind: str
    value: str
    at: int


class Revoking:
    """Removes users from calls. `pending`: what the calls have not been told yet."""

    def __init__(self, writer: ChannelWriter, evidence: CallEvidence) -> None:
        self._writer = writer
        self._evidence = evidence
        self._known: OrderedDict[str, dict[str, None]] = OrderedDict()
        self.pending: dict[Revocation, None] = {}
        self._working: set[Revocation] = set()
        self._more = trio.Event()

    def note(self, user_id: str, names: Iterable[str]) -> None:
        """A user gets a voice token by a token, login and device of these names. O(names)."""
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
        """What a revocation means for calls. `others`: users whose sockets it closed."""
        named = rule.value if rule.kind == "user" else rule.user_id
        users = [named] if named else [*self._known.get(rule.value, ()), *others]
        at = round(rule.at * 1000)
        return [Revocation(user, rule.kind, rule.value, at) for user in dict.fromkeys(users)]

    def revoked(self, rule: Rule, others: Iterable[str] = ()) -> None:
        """See to it that calls are told. Does not wait. `others`: see `affected`."""
        for one in self.affected(rule, others):
            self.pending.pop(one, None)
            self.pending[one] = None
            if len(self.pending) > WAITING_MOST:
                del self.pending[next(iter(self.pending))]
        self._more.set()

    async def run(self) -> None:
        """Work, for ever."""
        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(self._work)

    async def _work(self) -> None:
        while True:
            one = next((one for one in self.pending if one not in self._working), None)
            if one is None:
                self._more = trio.Event()
                await self._more.wait()
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

    async def apply_now(self, rule: Rule) -> list[str]:
        """Tell the calls of a revocation at once; the channels in which it is still to be done.

        What the store does not take in APPLY_SECONDS is done later.
        """
        found: list[str] = []
        with trio.move_on_after(APPLY_SECONDS), suppress(StoreError):
            for one in self.affected(rule):
                found += await self.apply(one)
        return found

    async def apply(self, revocation: Revocation) -> list[str]:
        """Tell the calls. Those from which the provider has still to remove the user.

        Raises StoreError.
        """
        since = revocation.at - self._writer.limits.removed_ms
        noted = await self._evidence.calls_of(revocation.user_id)
        return [
            channel_id
            for channel_id, at in noted
            if at >= since and await self._apply(channel_id, revocation)
        ]

    async def _apply(self, channel_id: str, revocation: Revocation) -> bool:
        try:
            if not concerned(await self._writer.read(channel_id), revocation):
                return False
            with suppress(NotLive):
                await self._writer.change(channel_id, partial(removed, revocation=revocation))
                log.info("voice_revoked", channel_id=channel_id, user_id=revocation.user_id)
            return revocation.user_id in (await self._writer.read(channel_id)).record.unwelcome
        except StoreError as error:
            if not of_record(error):
                raise
            log.warning("voice_revocation_skips", channel_id=channel_id, reason=error.detail)
            return False


def removed(channel: Channel, now: int, *, revocation: Revocation) -> None:
    """Have a user removed whose tokens were taken back. Raises NotLive when nothing is to be noted.

    What was noted since the revocation is not noted again.
    """
    kept_out = channel.record.removed.get(revocation.user_id, 0) - channel.limits.removed_ms
    if kept_out >= revocation.at or not concerned(channel, revocation):
        raise NotLive
    channel.remove(revocation.user_id, now)


def concerned(channel: Channel, revocation: Revocation) -> bool:
    """Whether there is a call in which a user may be with what was taken back.

    Nobody knows with which token somebody came of whom nothing is noted: they are meant.
    """
    participant = channel.record.participants.get(revocation.user_id)
    return channel.live and (participant is None or concerns(revocation, participant))


def concerns(revocation: Revocation, participant: Participant) -> bool:
    """Whether the voice token of a participant was got with what was taken back."""
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
