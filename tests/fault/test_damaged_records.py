"""Records in Redis that are damaged, among good ones: the good ones get their chores on time.

Whole servers, a real Redis, the stand-in provider. The damage is done behind the servers' back, in
the forms in which another program, another release or a broken disk could leave it.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
import redis
import structlog
import trio

from support.contract.requests import write
from support.redis_servers import RedisServer, until
from support.server_kit import mint, new_session, running_node
from support.voice.voice_kit import VoiceRig, voice_mint, voice_server
from support.voice.webhook_kit import eventually
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge.rates.attempts import Attempts
from syncbridge.records.sessions import Notice
from syncbridge.slots import TAGS, session_key
from syncbridge_server import isolation
from syncbridge_server.redis.bus.messages import common_channel, encode_notice
from syncbridge_server.redis.sessions_aside import cold_index
from syncbridge_server.redis.stores.keys import held_key
from syncbridge_server.redis.stores.store import RedisStore
from syncbridge_server.redis.stores.voice import NEWS, bucket_keys, bucket_of, channel_key
from syncbridge_server.redis.stores.voice import session_key as voice_session_key
from syncbridge_server.voice.rooms import timers

GOOD = [f"good-{number}" for number in range(10)]
BRIEF = {"voice_idle_unjoined": 1.0, "voice_seat": 0.5, "voice_sync": 0.4, "voice_monitor": 0.4}
ASIDE_SECONDS = 60.0
"""Six failures in a row: a look a second, at times with another chore in the way."""
MOST_LINES = 12
"""Lines about one record: a few chores, each the first time, and one when it is set aside."""


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of milliseconds instead of seconds."""
    monkeypatch.setattr(timers, "LEASE_MS", 1_000)  # which also bounds the work on a channel
    quick = partial(Attempts, first_s=0.02, longest_s=0.1)
    monkeypatch.setattr(isolation, "Attempts", quick)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    """What is logged."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def no_json(raw: redis.Redis, channel: str) -> None:
    raw.hset(channel_key(channel), "d", "{")


def member(name: str, value: Any, raw: redis.Redis, channel: str) -> None:
    """A member of the record is another one, or none (`...`)."""
    record = json.loads(raw.hget(channel_key(channel), "d"))  # type: ignore[arg-type]
    *path, last = name.split(".")
    inner = record
    for part in path:
        inner = inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    raw.hset(channel_key(channel), "d", json.dumps(record))


def another_type(raw: redis.Redis, channel: str) -> None:
    raw.delete(channel_key(channel))
    raw.rpush(channel_key(channel), "not this")


def no_utf8(raw: redis.Redis, channel: str) -> None:
    raw.hset(channel_key(channel), "d", b'{"channel_id":"\xff\xfe"}')


def nested(raw: redis.Redis, channel: str) -> None:
    raw.hset(channel_key(channel), "d", '{"x":' * 5_000)


def no_revision(raw: redis.Redis, channel: str) -> None:
    raw.hdel(channel_key(channel), "r")


def odd_revision(raw: redis.Redis, channel: str) -> None:
    raw.hset(channel_key(channel), "r", "seven")


DAMAGE = {
    "no JSON": no_json,
    "bytes that are not UTF-8": no_utf8,
    "nested without end": nested,
    "no channel id": partial(member, "channel_id", ...),
    "another channel's id": partial(member, "channel_id", "somebody"),
    "a member is missing": partial(member, "room.key", ...),
    "a member of another type": partial(member, "room", 7),
    "half of a surrogate pair": partial(member, "waddle_id", "\ud83d"),
    "an unknown word": partial(member, "call.phase", "dancing"),
    "a time beyond every range": partial(member, "room.opened_at", 10**400),
    "a key of another type": another_type,
    "no revision": no_revision,
    "an odd revision": odd_revision,
}


def spoil(raw: redis.Redis, channel: str, damage: Callable[[redis.Redis, str], None]) -> None:
    """Damage a channel, and let it be due. A write that is on its way must not mend it: it comes
    too late, for the revision has changed."""
    raw.hincrby(channel_key(channel), "r", 1)
    damage(raw, channel)
    raw.zadd(bucket_keys(bucket_of(channel))[0], {channel: 1})


async def letters(rig: VoiceRig) -> list[dict[str, Any]]:
    """The dead letters, as an operator sees them."""
    path = "/admin/voice/dead-letters?limit=200"
    answer = await rig.ask("GET", path, voice_mint("root", Role.ADMIN))
    assert 200 == answer.status_code, answer.text
    found: list[dict[str, Any]] = answer.json()["dead_letters"]
    return found


async def aside(rig: VoiceRig, *records: str) -> list[dict[str, Any]]:
    """Wait until these have letters; all letters."""

    async def all_there() -> list[dict[str, Any]]:
        found = await letters(rig)
        return found if {letter["record"] for letter in found} >= set(records) else []

    return await rig.until(all_there, f"set aside: {records}", ASIDE_SECONDS)


def indexed(raw: redis.Redis, channel: bytes) -> list[Any]:
    """Where chores would find a channel."""
    keys = [key for bucket in range(16) for key in bucket_keys(bucket)]
    return [key for key in keys if raw.zscore(key, channel) is not None]


async def test_good_channels_get_their_chores(redis_server: RedisServer, lines: list[Any]) -> None:
    """Each damaged channel is set aside, once; the good ones end at the provider in time."""
    raw = redis.Redis.from_url(redis_server.url)
    async with voice_server(redis_server.url, **BRIEF) as rig:
        bad = {f"bad-{number}": damage for number, damage in enumerate(DAMAGE.values())}
        for channel in bad:
            await rig.join("ann", channel)
        sessions = [(await rig.token("bob", channel))["sessionId"] for channel in GOOD]
        for channel, damage in bad.items():
            spoil(raw, channel, damage)
        found = await aside(rig, *bad)

        async def ended() -> bool:
            rooms = await rig.rooms()
            return all(rooms[session]["ended"] for session in sessions)

        await rig.until(ended, "the good sessions are ended")
        await trio.sleep(1.0)  # some more passes: nothing of it may be told again
        again = await letters(rig)

    counts = Counter(letter["record"] for letter in again)
    assert dict.fromkeys(bad, 1) == {record: counts[record] for record in bad}
    assert {"channel"} == {letter["kind"] for letter in found}
    assert [] == [where for channel in bad for where in indexed(raw, channel.encode())]
    assert_quiet(lines, bad)


def assert_quiet(lines: list[Any], records: Any) -> None:
    """No part crashed, and no record was logged again and again."""
    assert [] == [line for line in lines if line["event"].endswith("crashed")]
    about = Counter(line.get("record") or line.get("channel_id") for line in lines)
    assert {} == {name: about[name] for name in records if about[name] > MOST_LINES}
    set_aside = Counter(line["record"] for line in lines if line["event"] == "record_set_aside")
    assert {} == {name: set_aside[name] for name in records if set_aside[name] != 1}


@pytest.mark.parametrize("name", [b"\xff\xfe", b"caf\xe9", b"a\x00b", b"x" * 300, b"\xed\xa0\xbd"])
async def test_an_id_that_is_no_text(
    redis_server: RedisServer, name: bytes, lines: list[Any]
) -> None:
    """It is due and live, by somebody else's hand: set aside, and shown as an escape.

    One of which nothing is stored is nobody's, and is forgotten.
    """
    raw = redis.Redis.from_url(redis_server.url)
    text = name.decode(errors="surrogateescape")
    async with voice_server(redis_server.url, **BRIEF) as rig:
        session = await rig.join("ann", "good")
        for each in (text, text + "2"):
            for key in bucket_keys(bucket_of(each)):
                score = 1 if key.endswith("due") else 1e14
                raw.zadd(key, {each.encode(errors="surrogateescape"): score})
        hash_key = channel_key(text).encode(errors="surrogateescape")
        raw.hset(hash_key, mapping={"r": 1, "d": b'{"channel_id":"x"}'})
        # A write is told to all nodes, one by another hand as well: the indexes are read again.
        raw.spublish(common_channel(TAGS[0], 0), encode_notice(Notice(NEWS, "", b"of a write")))
        shown = text.encode(errors="backslashreplace").decode()
        [letter] = await aside(rig, shown)
        await rig.sim.move(session, "ann", "leave")
        await rig.until_channel("good", lambda c: c.call is None or not c.call.users)

        async def forgotten() -> bool:
            return not indexed(raw, name) and not indexed(raw, name + b"2")

        await rig.until(forgotten, "neither is in an index")
        assert ("channel", shown) == (letter["kind"], letter["record"])
        path = f"/admin/voice/dead-letters/{letter['entry']}"
        assert 204 == (await rig.ask("DELETE", path, voice_mint("root", Role.ADMIN))).status_code
        assert not raw.exists(hash_key)
    assert [] == [line for line in lines if line["event"].endswith("crashed")]


async def test_times_that_are_none(redis_server: RedisServer, lines: list[Any]) -> None:
    """An infinite time in an index is as good as any early one."""
    raw = redis.Redis.from_url(redis_server.url)
    async with voice_server(redis_server.url, **BRIEF) as rig:
        session = (await rig.token("ann", "good"))["sessionId"]
        raw.zadd(bucket_keys(bucket_of("good"))[0], {"good": float("-inf")})
        raw.zadd(bucket_keys(bucket_of("none"))[0], {"none": float("-inf")})

        async def ended() -> bool:
            return bool((await rig.rooms())[session]["ended"])

        await rig.until(ended, "the session is ended")
    assert [] == [line for line in lines if line["event"].endswith("crashed")]


async def test_a_chore_that_fails_is_set_aside_and_can_be_replayed(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, lines: list[Any]
) -> None:
    """A fault of ours: the channel waits for an operator, and goes on where it was."""
    broken = True

    async def end_session(end: Any, session: str) -> None:
        if broken and session == bad:
            raise ZeroDivisionError
        await end(session)

    async with voice_server(redis_server.url, **BRIEF) as rig:
        rig.voice.writer.limits = msgspec.structs.replace(rig.voice.writer.limits, retry_ms=50)
        bad = (await rig.token("ann", "bad"))["sessionId"]
        good = (await rig.token("ann", "good"))["sessionId"]
        provider: Any = rig.voice.provider
        monkeypatch.setattr(provider, "end_session", partial(end_session, provider.end_session))
        [letter] = await aside(rig, "bad")

        async def ended(session: str) -> bool:
            return bool((await rig.rooms())[session]["ended"])

        await rig.until(partial(ended, good), "the good session is ended")
        assert ("channel", False) == (letter["kind"], await ended(bad))
        assert "ZeroDivisionError" in letter["reason"]
        assert "bad" == json.loads(letter["body"])["channel_id"]
        broken = False
        path = f"/admin/voice/dead-letters/{letter['entry']}/replay"
        admin = voice_mint("root", Role.ADMIN)
        statuses = [(await rig.ask("POST", path, admin)).status_code for _ in range(2)]
        await rig.until(partial(ended, bad), "the session is ended after the replay")

        assert [204, 404] == statuses
        assert [] == await letters(rig)
        metric = rig.node.server.registry.get_sample_value
        assert 1.0 == metric("syncbridge_records_set_aside_total", {"kind": "channel"})
    assert_quiet(lines, ["bad"])


async def test_whoever_asks_for_a_token_brings_a_channel_back(redis_server: RedisServer) -> None:
    """A damaged channel that an operator has discarded begins anew, and has its chores again."""
    raw = redis.Redis.from_url(redis_server.url)
    async with voice_server(redis_server.url, **BRIEF) as rig:
        await rig.token("ann", "c")
        spoil(raw, "c", no_json)
        [letter] = await aside(rig, "c")
        refused = await rig.ask_token("ann", "c")
        path = f"/admin/voice/dead-letters/{letter['entry']}"
        discarded = await rig.ask("DELETE", path, voice_mint("root", Role.ADMIN))
        session = (await rig.token("ann", "c"))["sessionId"]

        async def ended() -> bool:
            return bool((await rig.rooms())[session]["ended"])

        assert (500, "state_damaged") == (refused.status_code, refused.json()["code"])
        assert 204 == discarded.status_code
        await rig.until(ended, "the new session is ended")


async def test_discarding_harms_no_channel_that_lives(redis_server: RedisServer) -> None:
    """One that was written since it was set aside stays as it is."""
    async with voice_server(redis_server.url) as rig:
        inbox = rig.voice.inbox
        await rig.join("ann", "c")
        await inbox.keep("channel", "c", "due: a test")
        [letter] = await letters(rig)
        path = f"/admin/voice/dead-letters/{letter['entry']}"
        await rig.ask("DELETE", path, voice_mint("root", Role.ADMIN))
        channel = await rig.channel("c")

        assert channel.call is not None
        assert ("ann",) == channel.call.users


@pytest.mark.parametrize("kept", ["list", "bytes"])
async def test_a_damaged_note_of_a_session_holds_up_no_webhook(
    redis_server: RedisServer, kept: str, lines: list[Any]
) -> None:
    """Which channel a session belongs to cannot be read: other webhooks take effect."""
    raw = redis.Redis.from_url(redis_server.url)
    async with voice_server(redis_server.url) as rig:
        bad, good = [(await rig.token("ann", c))["sessionId"] for c in ("bad", "good")]
        raw.delete(voice_session_key(bad))
        if kept == "list":
            raw.rpush(voice_session_key(bad), "not this")
        else:
            raw.set(voice_session_key(bad), b"\xff")
        await rig.sim.move(bad, "ann")
        await rig.sim.move(good, "ann")
        await rig.until_channel("good", lambda c: c.call is not None and "ann" in c.call.users)
    assert [] == [line for line in lines if line["event"].endswith("crashed")]


async def test_damaged_sessions_hold_up_no_others(
    redis_server: RedisServer, lines: list[Any]
) -> None:
    """Those that cannot be packed, or swept of dead devices, are set aside; the good one is packed
    and swept."""
    raw = redis.Redis.from_url(redis_server.url)
    bad, good = new_session(), new_session()
    quick = {"freeze_after": 1.0, "freeze_bytes": 1, "presence_timeout": 2.0}
    quick["heartbeat_interval"] = 0.5
    async with running_node(redis_server.url, **quick) as node, node.http() as http:
        headers = {"Authorization": f"Bearer {mint('root', Role.ADMIN)}"}
        body = {"session_id": good, "user_id": "ann", "device_id": "d", "state_data": {"a": "1"}}
        stored = await http.post("/session/snapshot", json=body, headers=headers)
        assert 201 == stored.status_code, stored.text
        raw.set(session_key(bad, "m"), "not this")
        raw.hset("nodes:{nodes}", "gone", "1")
        for name in (bad.encode(), b"\xff\xfe"):
            text = name.decode(errors="surrogateescape")
            raw.zadd(cold_index(text), {name: 1})
            raw.sadd(held_key(text, "gone"), name)

        async def told() -> set[str]:
            answer = await http.get("/admin/voice/dead-letters", headers=headers)
            found = answer.json()["dead_letters"]
            return {letter["kind"] for letter in found if letter["record"] == bad}

        async def all_done() -> bool:
            await node.server.freezer.sweep()
            return await told() == {"freeze", "presence"} and node.server.freezer.frozen > 0

        await eventually(all_done)
        assert [] == raw.zrange(cold_index(bad), 0, -1)
        assert not raw.sismember(held_key(bad, "gone"), bad)
        answer = await http.get(f"/session/{good}", headers=headers)
        assert {"a": "1"} == answer.json()["state_data"]
    assert 2 == len([line for line in lines if line["event"] == "record_set_aside"])


@pytest.mark.parametrize("damage", ["epoch", "floor"])
async def test_who_writes_to_a_session_that_cannot_be_read_is_told(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A write is stored, and its content can be shown to nobody: it is of another epoch than what
    is here, or stands behind a commit that was missed. Its sender hears `state_damaged`."""
    raw, session = redis.Redis.from_url(redis_server.url), new_session()
    async with running_node(redis_server.url) as node, await Device.open(node.port) as device:
        await device.auth(mint("ann"), "phone", session_id=session)
        await device.set("a", 1)
        fanout = node.server.gateway.fanout
        if damage == "epoch":
            raw.hdel(session_key(session, "m"), "e")
        else:
            raw.hset(session_key(session, "m"), "f", "not this")
            monkeypatch.setattr(fanout, "receive", lambda commits: None)
            request = write(session, {"b": "1"}, user_id="ann")
            await RedisStore(node.server.io, "elsewhere").call(request)
        told = [(await device.set("a", value))["payload"].get("code") for value in (2, 3)]
        await until(lambda: not fanout.reads)
        waiting = node.server.gateway.registry.sessions[session].has_hole()
        alive = await device.request(1)

    assert ["state_damaged"] * 2 == told
    assert (False, 2) == (waiting, alive["type"])
