"""Laws of a channel over random histories: storing changes nothing, and no room is forgotten.

A provider is played that opens what it is asked for, at once or late, and ends what is to be ended;
callers, timers and evidence come in any order.
"""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from syncbridge.voice.call import ChannelCall
from syncbridge.voice.call_records import CallLimits, Record
from syncbridge.voice.channel import LOST, Channel, ChannelLimits
from syncbridge.voice.evidence import (
    Ended,
    Evidence,
    Joined,
    Left,
    Migrated,
    Polled,
    Source,
    Vacant,
)
from syncbridge.voice.provider.errors import SessionFull
from syncbridge.voice.provider.records import Permissions
from syncbridge.voice.records import ChannelConfig, ChannelRecord, decode_record, encode_record

CALL = CallLimits(
    max_participants=2,
    unjoined_ms=40,
    empty_ms=20,
    migration_ms=15,
    lease_ms=25,
    tombstones=4,
    max_connections=6,
)
LIMITS = ChannelLimits(
    call=CALL,
    seat_ms=10,
    retry_ms=5,
    retry_most_ms=20,
    opening_ms=8,
    max_age_ms=200,
    pool_uses=2,
    pool_ms=30,
    handoff_ms=10,
)
USERS = st.sampled_from(["ann", "bob", "cy"])
CONNECTIONS = st.sampled_from(["", "c1", "c2", "c3"])
BACK = st.integers(0, 30)


def said(at: int, generation: int, what: tuple[str, str, str, Source]) -> Evidence:
    """A kind of evidence with its members."""
    kind, user, connection, source = what
    if kind in ("joined", "left"):
        made = Joined if kind == "joined" else Left
        return made(
            generation=generation, at=at, source=source, user_id=user, connection_id=connection
        )
    if kind == "polled":
        present = ((user, connection),) if connection else ()
        return Polled(generation=generation, at=at, present=present)
    plain = {"vacant": Vacant, "ended": Ended, "migrated": Migrated}[kind]
    return plain(generation=generation, at=at)


EVIDENCE = st.tuples(
    st.sampled_from(["joined"] * 4 + ["left"] * 2 + ["polled"] * 2 + ["vacant"]),
    USERS,
    CONNECTIONS,
    st.sampled_from(Source),
)
CALL_EVIDENCE = st.one_of(
    EVIDENCE,
    EVIDENCE,
    EVIDENCE,
    st.tuples(st.sampled_from(["migrated", "ended"]), USERS, CONNECTIONS, st.sampled_from(Source)),
)


def reloaded(call: ChannelCall) -> ChannelCall:
    """The call out of the bytes in which it is stored."""
    stored = msgspec.json.encode(call.dump())
    return ChannelCall.load(msgspec.json.decode(stored, type=Record), CALL)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), BACK, st.integers(0, 1), CALL_EVIDENCE), max_size=40))
def test_a_call_that_is_stored_after_every_step_is_the_same(
    steps: list[tuple[int, int, int, tuple[str, str, str, Source]]],
) -> None:
    """The same events, times and figures as one that was never stored."""
    now, generation = 1000, 1
    kept, stored = ChannelCall(now, generation, CALL), ChannelCall(now, generation, CALL)
    for wait, back, ahead, what in steps:
        now += wait
        generation += what[0] == "migrated"
        evidence = said(now - back, generation - ahead, what)
        for step in (
            lambda call: call.apply(evidence, now),
            lambda call: call.settle(now),
            lambda call: call.expire(now + 3),
        ):
            assert step(kept) == step(stored)
            stored = reloaded(stored)
        assert kept.dump() == stored.dump()
        assert kept.next_due() == stored.next_due()
        assert kept.statistics(now) == stored.statistics(now)
        assert (kept.users, kept.doubtful) == (stored.users, stored.doubtful)


class World:
    """A channel, its provider, and the answers of the provider that are under way.

    Attributes:
        asked: every key under which a room was asked for, in order.
        ended: keys of the rooms that were ended at the provider.
        lost: keys of rooms that the provider has lost.
    """

    def __init__(self) -> None:
        self.now = 1000
        self.stored = encode_record(ChannelRecord("c"))
        self.asked: dict[str, int] = {}
        self.ended: list[str] = []
        self.lost: set[str] = set()
        self.answers: list[tuple[str, str]] = []

    def change(self, what: str, evidence: tuple[str, str, str, Source], back: int) -> Channel:
        """One step of somebody: read, change, write."""
        channel = Channel(decode_record(self.stored), LIMITS)
        getattr(self, "_" + what)(channel, evidence, back)
        self.stored = encode_record(channel.dump())
        return channel

    def _ask(self, which: str, key: str, generation: int) -> None:
        self.asked.setdefault(key, generation)
        self.answers.append((which, key))

    def _open(self, channel: Channel, *_: object) -> None:
        if not channel.live:
            room = channel.opening(self.now, ChannelConfig(max_participants=2), "w")
            self._ask("opened", room.key, room.generation)

    def _migrate(self, channel: Channel, *_: object) -> None:
        room = channel.migrate(self.now, "limit")
        if room is not None:
            self._ask("moved", room.key, room.generation)

    def _lose(self, channel: Channel, *_: object) -> None:
        room = channel.migrate(self.now, LOST)
        if room is not None and room.reason == LOST and channel.record.room is not None:
            self.lost.add(channel.record.room.key)
            self._ask("moved", room.key, room.generation)

    def _answer(self, channel: Channel, _: object, back: int) -> None:
        """The provider answers one of the requests, not always in their order."""
        if self.answers:
            which, key = self.answers.pop(back % len(self.answers))
            getattr(channel, which)(f"s-{key}", self.now, key)

    def _hear(self, channel: Channel, evidence: tuple[str, str, str, Source], back: int) -> None:
        generation = channel.call.generation if channel.call else 1
        channel.apply([said(self.now - back, generation, evidence)], self.now)

    def _admit(self, channel: Channel, evidence: tuple[str, str, str, Source], _: int) -> None:
        try:
            channel.admit(evidence[1], Permissions(), self.now)
        except SessionFull:
            assert channel.taken(self.now, but=evidence[1]) >= 2

    def _expire(self, channel: Channel, *_: object) -> None:
        channel.expire(self.now)

    def _end(self, channel: Channel, *_: object) -> None:
        channel.end(self.now, "ended")

    def _tasks(self, channel: Channel, *_: object) -> None:
        for room in list(channel.record.retired):
            self.ended.append(room.key)
            channel.confirm_ended(room)

    def held(self, channel: Channel) -> list[str]:
        """Keys of the rooms that the channel still knows, none with the session of another."""
        record = channel.record
        rooms = [record.room, record.coming, record.previous, *record.retired]
        assert all(room.session_id in ("", f"s-{room.key}") for room in rooms if room is not None)
        return [room.key for room in rooms if room is not None]

    def check(self, channel: Channel) -> None:
        """Every room that was asked for is held or was ended, once; or the provider lost it."""
        accounted = [*self.held(channel), *self.ended]
        assert len(accounted) == len(set(accounted))
        assert set(accounted) <= set(self.asked)
        assert set(self.asked) - set(accounted) <= self.lost
        generations = list(self.asked.values())
        assert generations == sorted(set(generations))
        record, due = channel.record, channel.next_due(self.now)
        assert (due is None) == channel.idle
        assert channel.live == (channel.call is not None)
        pooled = record.room is not None and bool(record.room.session_id) and not channel.live
        assert pooled or not record.pooled_until


DEEDS = (
    *("open", "open", "answer", "answer", "answer", "answer", "hear", "hear", "hear", "hear"),
    *("admit", "expire", "expire", "tasks", "migrate", "migrate", "lose", "end"),
)
STEPS = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.sampled_from(DEEDS),
        EVIDENCE,
        BACK,
    ),
    min_size=12,
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_no_room_is_forgotten_and_everything_comes_to_an_end(
    steps: list[tuple[int, str, tuple[str, str, str, Source], int]],
) -> None:
    """While anything is to be done it is due; and when it is done, nothing is left."""
    play(steps)


def test_a_room_that_was_kept_and_ended_leaves_no_trace() -> None:
    """The room after it is asked for, and nobody answers: it is not taken for a kept one."""
    nothing = ("polled", "ann", "", Source.POLL)
    deeds = [(5, "open"), (1, "answer"), (2, "end"), (1, "tasks"), (1, "open"), (1, "answer")]
    kept = [(40, "expire"), (1, "end"), (1, "open")]
    play([(wait, deed, nothing, 0) for wait, deed in [*deeds, *kept]])


def play(steps: list[tuple[int, str, tuple[str, str, str, Source], int]]) -> None:
    """Take the steps, then let time pass until nothing is due. Every step is checked."""
    world = World()
    channel = Channel(decode_record(world.stored), LIMITS)
    for wait, what, evidence, back in steps:
        world.now += wait
        channel = world.change(what, evidence, back)
        world.check(channel)

    nobody = ("vacant", "ann", "", Source.POLL)
    for _ in range(60):
        due = channel.next_due(world.now)
        if due is None:
            break
        world.now = max(due, world.now + 1)
        for what in ("expire", "hear", "tasks"):
            channel = world.change(what, nobody, 0)
            world.check(channel)
        if channel.record.room is not None and not channel.live and not channel.record.pooled_until:
            channel = world.change("end", nobody, 0)
    assert channel.idle
    assert set(world.asked) - world.lost <= set(world.ended)
