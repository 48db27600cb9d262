"""Why somebody is shown, over REST: whole servers, real sockets, the stand-in provider."""

from typing import Any

import structlog

from support.redis_servers import RedisServer
from support.voice.voice_kit import EVERYTHING, VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role
from syncbridge_server.voice.checks.synchronizer import Synchronizer

NEVER = 86_000.0
QUIET = {"voice_sync": NEVER, "voice_monitor": NEVER}


def service() -> str:
    return voice_mint("bot", Role.SERVICE)


async def get(rig: VoiceRig, path: str, token: str = "", node: int = 0) -> Any:
    """An answer that must be one."""
    answer = await rig.ask("GET", path, token or service(), node=node)
    assert 200 == answer.status_code, answer.text
    return answer.json()


async def timeline(rig: VoiceRig, channel: str, token: str = "") -> list[tuple[str, str, str]]:
    """Source, what and user of each entry, the earliest first."""
    told = await get(rig, f"/voice/channels/{channel}/timeline", token)
    return [(e["source"], e["what"], e["userId"]) for e in told["entries"][::-1]]


async def evidence(rig: VoiceRig, channel: str, user: str, token: str = "") -> Any:
    shown = await get(rig, f"/voice/channels/{channel}", token)
    return next(p["evidence"] for p in shown["participants"] if p["userId"] == user)


def synchronizer(rig: VoiceRig) -> Synchronizer:
    return rig.voice.synchronizer


async def test_each_statement_is_told_with_its_source(redis_server: RedisServer) -> None:
    """A token, the webhook with its id, and the operator who ended the call."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        await rig.join("ann", "lobby")
        shown = await evidence(rig, "lobby", "ann")
        root = voice_mint("root", Role.ADMIN)
        assert 200 == (await rig.ask("POST", "/voice/channels/lobby/end", root)).status_code
        told = await get(rig, "/voice/channels/lobby/timeline")

    found = {(e["source"], e["what"]): e for e in told["entries"]}
    assert [
        ("provider", "opened"),
        ("token", "token"),
        ("webhook", "joined"),
        ("operator", "left"),
        ("operator", "ended"),
    ] == [(e["source"], e["what"]) for e in told["entries"][::-1]]
    joined = found["webhook", "joined"]
    assert ("webhook", joined["ref"]) == (shown["source"], shown["ref"])
    assert joined["ref"]
    assert joined["connectionId"] == shown["connections"][0]["connectionId"]
    assert ("webhook", []) == (shown["lastConfirmedBy"], shown["connections"][0]["doubts"])
    assert "root" == found["operator", "ended"]["ref"]


async def test_a_doubt_has_the_source_that_the_timeline_names(redis_server: RedisServer) -> None:
    """An operator's word is not a device's; here the provider is away, so it stays a doubt."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        await rig.join("ann", "lobby")
        await rig.sim.faults(status=503)
        leave = "/voice/channels/lobby/leave"
        answers = [
            await rig.ask("POST", leave, service(), {"userId": "ann"}),
            await rig.ask("POST", leave, voice_mint("ann"), {}),
        ]
        shown = await evidence(rig, "lobby", "ann")
        told = await timeline(rig, "lobby")

    assert [503, 503] == [answer.status_code for answer in answers]
    assert ["operator"] == [doubt["source"] for doubt in shown["connections"][0]["doubts"]]
    assert ("operator", "doubted", "ann") in told


async def test_a_lost_leave_is_repaired_and_told(redis_server: RedisServer) -> None:
    """Doubt, removal, a log line with channel, user, cause and time, and the figures by cause."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        session = await rig.join("ann", "lobby")
        await rig.join("bob", "lobby")
        await rig.sim.faults(webhooks=["lost"])
        await rig.sim.move(session, "bob", "leave")
        with structlog.testing.capture_logs() as lines:
            await synchronizer(rig).make_pass()
        told = await timeline(rig, "lobby")
        metrics = (await rig.http.get(rig.url + "/metrics")).text

    assert [("list", "doubted", "bob"), ("list", "left", "bob")] == told[-2:]
    [line] = [one for one in lines if one["event"] == "voice_repaired"]
    assert ("lobby", "bob", "missed_leave") == (line["channel_id"], line["user_id"], line["cause"])
    assert line["wrong_ms"] > 0
    assert 'syncbridge_voice_repairs_total{cause="missed_leave"} 1.0' in metrics
    assert 'syncbridge_voice_wrong_seconds_count{cause="missed_leave"} 1.0' in metrics


async def test_a_call_that_nobody_can_verify_is_degraded(redis_server: RedisServer) -> None:
    """The last call, and all lists are empty: after two passes it is not healthy any more, on any
    node, and it is again when a list says something."""
    async with voice_server(redis_server.url, nodes=2, kind="cloudflare", **QUIET) as rig:
        await rig.join("ann", "lobby")
        await rig.sim.faults(lists="empty")
        health = []
        for _ in range(2):
            await synchronizer(rig).make_pass()
            health.append((await get(rig, "/voice/channels/lobby", node=1))["health"])
        [row] = (await get(rig, "/voice/channels"))["channels"]
        totals = await rig.voice.monitor.make_pass()
        await rig.sim.faults()
        await synchronizer(rig).make_pass()
        health.append((await get(rig, "/voice/channels/lobby", node=1))["health"])

    assert ["healthy", "degraded", "healthy"] == [one["status"] for one in health]
    assert ["", "empty", ""] == [one["reason"] for one in health]
    assert [1.0, 0.75, 1.0] == [one["score"] for one in health]
    assert ("degraded", "empty", 1) == (row["status"], row["reason"], row["participants"])
    assert 1 == totals.health["degraded"]


async def test_a_list_that_fails_is_a_doubt_about_every_call(redis_server: RedisServer) -> None:
    """Twice in a row, with the reason."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        await rig.join("ann", "lobby")
        await rig.sim.faults(status=503)
        for _ in range(2):
            await synchronizer(rig).make_pass()
        await rig.sim.faults()
        [row] = (await get(rig, "/voice/channels"))["channels"]

    assert ("degraded", "list_unreachable") == (row["status"], row["reason"])


async def test_calls_are_listed_for_whom_they_are(redis_server: RedisServer) -> None:
    """Page by page; a user sees those of the own grants, and nobody without any."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        names = [f"c{number}" for number in range(5)]
        for name in names:
            await rig.join("ann", name)
        found, cursor = list[str](), ""
        while True:
            page = await get(rig, f"/voice/channels?limit=2&cursor={cursor}")
            found += [row["channelId"] for row in page["channels"]]
            cursor = page["nextCursor"]
            if not cursor:
                break
        own = await get(rig, "/voice/channels", voice_mint("bob", channel="c3"))
        too_many = await rig.ask("GET", "/voice/channels?limit=0", service())

    assert names == sorted(found)
    assert ["c3"] == [row["channelId"] for row in own["channels"]]
    assert 422 == too_many.status_code


async def test_others_evidence_is_nobodys_business(redis_server: RedisServer) -> None:
    """A user reads what concerns themselves and the whole call; who removed them is not told."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        await rig.join("ann", "lobby")
        await rig.join("bob", "lobby")
        ann = voice_mint("ann", permissions=EVERYTHING)
        body = {"userId": "ann"}
        own, other = [await evidence(rig, "lobby", user, ann) for user in ("ann", "bob")]
        await rig.ask("POST", "/voice/channels/lobby/leave", service(), body)
        told = await get(rig, "/voice/channels/lobby/timeline", ann)
        path = "/voice/channels/lobby/timeline?userId=bob"
        refused = await rig.ask("GET", path, ann)
        of_bob = await get(rig, path)

    assert own["connections"]
    assert other is None
    assert {"", "ann"} == {entry["userId"] for entry in told["entries"]}
    [away] = [entry for entry in told["entries"] if entry["what"] == "sent_away"]
    assert ("operator", "") == (away["source"], away["ref"])
    assert 403 == refused.status_code
    assert {"", "bob"} == {entry["userId"] for entry in of_bob["entries"]}


async def test_the_calls_of_a_user_are_an_index_that_is_mended(redis_server: RedisServer) -> None:
    """Noted after the change; what was lost of it comes back with the next comparison."""
    async with voice_server(redis_server.url, **QUIET | {"voice_sync_stale": 0.001}) as rig:
        session = await rig.join("ann", "lobby")
        await rig.join("ann", "attic")

        async def calls() -> list[tuple[str, str]]:
            told = await get(rig, "/users/ann/calls", voice_mint("ann"))
            return [(row["channelId"], row["state"]) for row in told["calls"]]

        async def both() -> bool:
            return {("lobby", "connected"), ("attic", "connected")} == set(await calls())

        await rig.until(both, "both calls are noted")
        await rig.voice.evidence.forget_calls("ann", ["lobby", "attic"])
        assert [] == await calls()
        await synchronizer(rig).make_pass()
        await rig.until(both, "the index is mended")
        await rig.sim.move(session, "ann", "leave")

        async def gone() -> bool:
            return [("attic", "connected"), ("lobby", "left")] == await calls()

        await rig.until(gone, "the call that was left is told last")
        other = await rig.ask("GET", "/users/ann/calls", voice_mint("bob"))

    assert 403 == other.status_code
