"""A call with sound on a real LiveKit: some speak, others listen, and all move to another room.

Who listens joins the other room before leaving the one before, and leaves it with the first packet
from the other one; who speaks stays in both until everybody has come over.
`SYNCBRIDGE_LIVEKIT_PEOPLE` and `_LISTENERS` make the call larger; figures are printed.
"""

import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from support.redis_servers import RedisServer
from support.voice import livekit_client
from support.voice.livekit_kit import Clients, LiveKitSite, livekit_site
from support.voice.voice_kit import voice_mint
from syncbridge.identity import Role

PEOPLE = int(os.environ.get("SYNCBRIDGE_LIVEKIT_PEOPLE", "8"))
SPEAKERS = 2
LISTENERS = int(os.environ.get("SYNCBRIDGE_LIVEKIT_LISTENERS", "4"))
"""While all move, so many hear the sound; the others packets alone."""
AT_ONCE = 5
PROCESS = 25
"""Clients of one process."""
SECONDS = 60.0 + PEOPLE * 2
MEASURED = "SYNCBRIDGE_LIVEKIT_PEOPLE" in os.environ
"""Only then it is judged how long it was silent: it is the clients' CPU that decides that."""
SILENCE_MS = 1_000.0
MEDIA = Path(livekit_client.__file__).with_name("livekit_media.py")


@dataclass
class Call:
    """People in one call."""

    site: LiveKitSite
    listeners: int
    people: dict[str, Clients] = field(default_factory=dict)

    async def everybody(self, do: str, *events: str) -> dict[str, dict[str, Any]]:
        """Have each do something, some at a time; what each tells of it.

        Speakers wait for no turn: who listens keeps its own until it hears one of them.
        """
        told: dict[str, dict[str, Any]] = {}
        few = trio.CapacityLimiter(AT_ONCE if do in ("join", "move") else len(self.people))
        speakers = trio.CapacityLimiter(SPEAKERS)

        async def one(number: int, user: str) -> None:
            async with speakers if number < SPEAKERS else few:
                line: dict[str, Any] = {"do": do, "as": user}
                if do in ("join", "move"):
                    url = self.site.livekit.url.replace("http", "ws")
                    line |= {"url": url, "token": (await self._let_in(user))["token"]}
                    line |= {"speak": number < SPEAKERS}
                    line |= {"listen": SPEAKERS <= number < SPEAKERS + self.listeners}
                await self.people[user].say(**line)
                told[user] = await self.people[user].until(user, *events, "failed", seconds=SECONDS)

        async with trio.open_nursery() as nursery:
            for number, user in enumerate(self.people):
                nursery.start_soon(one, number, user)
        failed = {user: one for user, one in told.items() if one["event"] == "failed"}
        assert {} == failed
        return told

    async def hearing(self, what: str, many: int) -> dict[str, dict[str, Any]]:
        """What each has heard, once so many have heard frames, or packets, at all."""
        with trio.fail_after(SECONDS):
            while True:
                heard = await self.everybody("tell", "heard")
                if sum(one[what] > 0 for one in heard.values()) >= many:
                    return heard
                await trio.sleep(0.2)

    async def _let_in(self, user: str) -> dict[str, Any]:
        return await self.site.let_in(user, "lobby", "phone")


@asynccontextmanager
async def call(redis: RedisServer, listeners: int) -> AsyncIterator[Call]:
    """A call in which all are. Speakers have a process of their own."""
    values: dict[str, Any] = {"voice_sync": 86_000.0, "voice_migration": SECONDS}
    async with livekit_site(redis.url, **values) as site:
        found = Call(site, listeners)
        groups = -(-(PEOPLE - SPEAKERS) // PROCESS)
        processes = [await site.more_clients(MEDIA) for _ in range(1 + groups)]
        for number in range(PEOPLE):
            group = 0 if number < SPEAKERS else 1 + (number - SPEAKERS) % groups
            found.people[f"user-{number}"] = processes[group]
        await found.everybody("join", "joined")
        await site.until_users("lobby", *found.people)
        yield found


async def test_two_speak_and_all_others_listen(redis_server: RedisServer) -> None:
    """All are shown, as our server and LiveKit say, and the sound of both comes to each of them."""
    others = PEOPLE - SPEAKERS
    began = time.monotonic()
    async with call(redis_server, others) as here:
        joined = time.monotonic() - began
        heard = await here.hearing("frames", others)
        session = (await here.site.channel("lobby")).record.room
        assert session is not None
        listed = await here.site.listed(session.session_id)

    frames = [heard[user]["frames"] for user in list(here.people)[SPEAKERS:]]
    print(f"{PEOPLE} people, in after {joined:.1f} s; frames heard: {min(frames)} to {max(frames)}")
    assert set(here.people) == listed
    assert [others] == [sum(count > 0 for count in frames)]
    assert [] == here.site.gone("lobby")


async def test_all_move(redis_server: RedisServer) -> None:
    """After the migration all are in the other room, and nobody was shown as gone. For each the
    other room was heard before the one before was left.
    """
    async with call(redis_server, LISTENERS) as here:
        site = here.site
        await here.hearing("packets", PEOPLE)
        before = await here.hearing("frames", min(LISTENERS, PEOPLE - SPEAKERS))
        admin, began = voice_mint("operator", Role.ADMIN), time.monotonic()
        answer = await site.ask("POST", "/voice/channels/lobby/migrate", admin, {})
        assert answer.status_code == 200, answer.text
        moved = await here.everybody("move", "moved")
        took = time.monotonic() - began
        speakers = list(here.people)[:SPEAKERS]
        for user in speakers:
            await here.people[user].say(do="part", **{"as": user})
            moved[user] = await here.people[user].until(user, "parted", seconds=SECONDS)
        after = await here.everybody("tell", "heard")
        channel = await site.until_channel(
            "lobby", lambda c: c.record.move is not None and c.record.move.result == "moved"
        )
        await site.until_users("lobby", *here.people)

    quiet = [one["silence_ms"] for one in before.values()]
    silence = [one["silence_ms"] for one in after.values()]
    sound = sum(one["frames"] > 0 for one in before.values())
    print(
        f"{PEOPLE} people, {SPEAKERS} speak, {sound} hear sound; moved in {took:.1f} s;"
        f" silence before {max(quiet):.0f} ms, while moving: longest {max(silence):.0f} ms,"
        f" median {statistics.median(silence):.0f} ms"
    )
    assert all(one["packets"] for one in after.values())
    assert sound == min(LISTENERS, PEOPLE - SPEAKERS)
    assert all(one["heard_before_left"] for one in moved.values())
    assert channel.record.move is not None
    assert (PEOPLE, 0) == (channel.record.move.migrated, channel.record.move.stranded)
    assert [] == site.gone("lobby")
    if MEASURED:
        assert max(silence) <= SILENCE_MS
