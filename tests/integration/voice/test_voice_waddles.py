"""Two waddles with channels of one id: two rooms, two calls, and answers that never mix."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import settings
from support.voice.voice_kit import EVERYTHING, VoiceRig, voice_mint, voice_server
from support.ws_client import Device
from syncbridge.identity import Role, VoiceGrant
from syncbridge.voice.naming import qualified_key
from syncbridge.voice.records import ChannelConfig, ChannelRecord
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.redis.stores.channel_names import owner_key, waddles_key

ID = "lobby"
PATH = f"/voice/channels/{ID}"


@pytest.fixture
async def rig(redis_server: RedisServer) -> AsyncIterator[VoiceRig]:
    """Two nodes on one Redis."""
    async with voice_server(redis_server.url, nodes=2) as rig:
        yield rig


def member(user: str, waddle: str) -> str:
    """A token for all channels of one waddle."""
    return voice_mint(user, waddle=waddle, permissions=EVERYTHING)


def bot() -> str:
    """A token of a service."""
    return voice_mint("bot", Role.SERVICE)


async def enter(rig: VoiceRig, user: str, waddle: str, channel: str = ID, node: int = 0) -> str:
    """Into the call of a waddle's channel; the provider's session."""
    body = {"waddleId": waddle, "channelId": channel}
    answer = await rig.ask("POST", "/api/voice/token", member(user, waddle), body, node)
    assert 200 == answer.status_code, answer.text
    session = str(answer.json()["sessionId"])
    await rig.sim.move(session, user)
    key = await rig.voice.names.claim(waddle, channel)
    await rig.until_channel(key, lambda c: c.call is not None and user in c.call.users)
    return session


def users_of(answer: httpx.Response) -> tuple[str, str, list[str]]:
    assert 200 == answer.status_code, answer.text
    shown = answer.json()
    people = [person["userId"] for person in shown["participants"]]
    return shown["channelId"], shown["waddleId"], people


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_channel_is_a_waddle_and_an_id(rig: VoiceRig) -> None:
    """Each has its room, whichever node opens it; grants decide, and of several a name."""
    one = await enter(rig, "ann", "a")
    two = await enter(rig, "bob", "b", node=1)
    assert one != two
    for node in (0, 1):
        ann = await rig.ask("GET", PATH, member("ann", "a"), node=node)
        bob = await rig.ask("GET", PATH, member("bob", "b"), node=node)
        assert ((ID, "a", ["ann"]), (ID, "b", ["bob"])) == (users_of(ann), users_of(bob))
        for token in (bot(), voice_mint("all", waddle="*")):
            answer = await rig.ask("GET", PATH, token, node=node)
            assert (409, "ambiguous") == problem(answer)
            assert ["a", "b"] == answer.json()["waddles"]
            named = await rig.ask("GET", PATH + "?waddle=b", token, node=node)
            assert (ID, "b", ["bob"]) == users_of(named)


def of_waddles(*waddles: str) -> str:
    """A token for all channels of some waddles."""
    tokens, _ = build_tokens(settings("unix:///nowhere"))
    voice = tuple(VoiceGrant(waddle, "*", ("speak",)) for waddle in waddles)
    return tokens.mint_access(Grant("eve", voice=voice), time.time(), 900.0)[0]


async def test_of_other_waddles_nothing_is_said(rig: VoiceRig) -> None:
    """Whoever may see two of three is told of two, by one it is taken, and by none it is refused;
    over REST and on sockets."""
    for user, waddle in (("ann", "a"), ("bob", "b"), ("cat", "c")):
        await enter(rig, user, waddle)
    for waddles, told in ((("c", "a", "z"), ["a", "c"]), (("b", "z"), None), (("z", "y"), [])):
        token = of_waddles(*waddles)
        answer = await rig.ask("GET", PATH, token)
        async with await device(rig, "eve", token) as eve:
            heard = await eve.request("voice_watch", {"channelId": ID})
        if told is None:
            assert (ID, "b", ["bob"]) == users_of(answer)
            assert ["bob"] == [person["userId"] for person in heard["participants"]]
        elif told:
            assert (409, "ambiguous", told) == (*problem(answer), answer.json()["waddles"])
            assert told == heard["payload"]["details"]["waddles"]
        else:
            assert (404, "channel_not_found") == problem(answer)
            assert [] == heard["participants"]


ROUTES = [
    ("GET", "", None),
    ("GET", "/history", None),
    ("GET", "/timeline", None),
    ("GET", "/config", None),
    ("GET", "/recordings", None),
    ("PUT", "/config", {"maxParticipants": 7}),
    ("POST", "/leave", {"userId": "ann"}),
    ("POST", "/migrate", None),
    ("POST", "/end", None),
]


@pytest.mark.parametrize(("method", "rest", "body"), ROUTES)
async def test_every_route_takes_a_waddle(rig: VoiceRig, method: str, rest: str, body: Any) -> None:
    """Without one: 409; with one that has no such channel nothing is touched; bad ones: 422."""
    await enter(rig, "ann", "a")
    await enter(rig, "bob", "b")
    assert (409, "ambiguous") == problem(await rig.ask(method, PATH + rest, bot(), body))
    for query in ("?waddle=", "?waddle=%00", "?waddles=a", f"?waddle={'w' * 257}"):
        answer = await rig.ask(method, PATH + rest + query, bot(), body)
        assert (422, "invalid_field") == problem(answer), query
    before = (await rig.channel(ID)).dump()
    answer = await rig.ask(method, f"{PATH}{rest}?waddle=b", bot(), body)
    assert 200 == answer.status_code, answer.text
    after = (await rig.channel(ID)).dump()
    assert (before.room, before.standing, before.generation) == (
        after.room,
        after.standing,
        after.generation,
    )
    assert after.call is not None


async def test_who_has_no_grant_is_refused_whatever_there_is(rig: VoiceRig) -> None:
    """A name opens nothing, and an answer does not say whether there is a channel."""
    await enter(rig, "ann", "a")
    bob = member("bob", "b")
    assert (403, "forbidden") == problem(await rig.ask("GET", PATH + "?waddle=a", bob))
    assert (403, "forbidden") == problem(await rig.ask("GET", PATH + "?waddle=none", bob))
    assert (404, "channel_not_found") == problem(await rig.ask("GET", PATH, bob))
    assert (404, "channel_not_found") == problem(await rig.ask("GET", PATH + "?waddle=b", bob))
    other = voice_mint("eve", waddle="a", channel="other")
    assert (403, "forbidden") == problem(await rig.ask("GET", PATH, other))


async def test_nobody_squats_the_ids_of_others(rig: VoiceRig) -> None:
    """A tenant opens eight ids, also as keys of their channels: the others talk as ever."""
    ids = [f"room{n}" for n in range(4)]
    for channel in [*ids, *(qualified_key("victim", one) for one in ids)]:
        await enter(rig, "eve", "squatter", channel)
    for n, channel in enumerate(ids):
        await enter(rig, "ann", "victim", channel, node=n % 2)
        shown = await rig.ask("GET", f"/voice/channels/{channel}", member("ann", "victim"))
        assert (channel, "victim", ["ann"]) == users_of(shown)


async def test_a_call_of_the_version_before_goes_on(rig: VoiceRig) -> None:
    """Its record stands under the id, and belongs to the waddle in it."""
    session = await enter(rig, "ann", "a")
    for key in (owner_key(ID), waddles_key(ID)):  # what the version before does not write
        await rig.node.server.io.execute("DEL", key)
    other = await enter(rig, "bob", "b", node=1)
    assert other != session
    assert session == await enter(rig, "cat", "a", node=1)
    assert ["ann", "cat"] == users_of(await rig.ask("GET", PATH, member("ann", "a")))[2]


async def test_ends_migrations_and_lists_are_apart(rig: VoiceRig) -> None:
    """One moves and ends; the other notices nothing, and both stand in the list."""
    await enter(rig, "ann", "a")
    two = await enter(rig, "bob", "b")
    listed = (await rig.ask("GET", "/voice/channels", bot())).json()["channels"]
    assert [("a", ID), ("b", ID)] == sorted((row["waddleId"], row["channelId"]) for row in listed)
    own = (await rig.ask("GET", "/voice/channels", member("bob", "b"))).json()["channels"]
    assert [("b", ID, two)] == [
        (row["waddleId"], row["channelId"], row["sessionId"]) for row in own
    ]
    moved = await rig.ask("POST", PATH + "/migrate?waddle=a", bot())
    assert (200, ID) == (moved.status_code, moved.json()["channelId"])
    ended = await rig.ask("POST", PATH + "/end?waddle=a", bot())
    assert (ID, True) == (ended.json()["channelId"], ended.json()["ended"])
    shown = await rig.ask("GET", PATH, member("bob", "b"))
    assert ["bob"] == users_of(shown)[2]
    assert two == shown.json()["session"]["sessionId"]
    history = await rig.ask("GET", PATH + "/history?waddle=b", bot())
    assert [] == history.json()["calls"]


async def test_a_page_says_nothing_of_what_is_not_shown(rig: VoiceRig) -> None:
    """Its cursor lies behind channels of others; it leads on, on both nodes, and can't be made."""
    for user, waddle, channel in (("ann", "a", ID), ("bob", "b", ID), ("bob", "b", "zoo")):
        await enter(rig, user, waddle, channel)
    found, cursor, token = list[str](), "", member("bob", "b")
    for page in range(4):
        answer = await rig.ask(
            "GET", f"/voice/channels?limit=1&cursor={cursor}", token, node=page % 2
        )
        assert 200 == answer.status_code, answer.text
        found += [row["channelId"] for row in answer.json()["channels"]]
        cursor = answer.json()["nextCursor"]
        assert not any(name in cursor for name in (ID, "zoo", "%"))
        if not cursor:
            break
    assert (sorted([ID, "zoo"]), "") == (sorted(found), cursor)
    for made in (ID, "zoo", qualified_key("b", ID).replace("%", "%25")):
        refused = await rig.ask("GET", f"/voice/channels?cursor={made}", token)
        assert (422, "invalid_field") == problem(refused)


async def test_what_is_prewarmed_or_configured_is_of_its_waddle(rig: VoiceRig) -> None:
    """In charge does not mean to give a channel away."""
    await enter(rig, "ann", "a")
    path = PATH + "/prewarm"
    assert (422, "invalid_field") == problem(
        await rig.ask("POST", path + "?waddle=a", bot(), {"waddleId": "b"})
    )
    warm = await rig.ask("POST", path, bot(), {"waddleId": "b"})
    assert (200, ID) == (warm.status_code, warm.json()["channelId"])
    record = (await rig.channel(qualified_key("b", ID))).record
    assert record.room is not None
    assert ("b", warm.json()["sessionId"]) == (record.waddle_id, record.room.session_id)
    assert "a" == (await rig.channel(ID)).record.waddle_id


async def test_a_configuration_is_found_as_long_as_it_is_kept(rig: VoiceRig) -> None:
    """It keeps a channel without calls, and the channel its key: names expire, too."""
    io, key = rig.node.server.io, qualified_key("b", ID)
    await enter(rig, "ann", "a")
    body = {"maxParticipants": 7}
    answer = await rig.ask("PUT", PATH + "/config?waddle=b", bot(), body)
    assert 200 == answer.status_code, answer.text
    await io.execute("PEXPIRE", waddles_key(ID), 60_000)
    await rig.voice.timers.look_after(key)
    assert await io.execute("PTTL", waddles_key(ID)) > 60_000
    shown = await rig.ask("GET", PATH + "/config?waddle=b", bot())
    assert 7 == shown.json()["config"]["maxParticipants"]


async def test_what_an_older_node_wrote_is_not_configured_for_another(rig: VoiceRig) -> None:
    """A waddle whose id it took meanwhile gets a key of its own, as for a token."""
    assert ID == await rig.voice.names.claim("a", ID)
    await rig.voice.writer.change(ID, lambda c, now: c.opening(now, ChannelConfig(), "old"))
    answer = await rig.ask("PUT", PATH + "/config?waddle=a", bot(), {"maxParticipants": 7})
    assert 200 == answer.status_code, answer.text
    assert (await rig.channel(qualified_key("a", ID))).record.standing is not None
    assert (await rig.channel(ID)).record.standing is None


async def test_recordings_of_a_waddle_without_a_channel_are_not_overlooked(rig: VoiceRig) -> None:
    """They are kept for longer than the channel, so another's are not taken for all."""
    await rig.voice.names.claim("a", ID)
    await enter(rig, "bob", "b")
    answer = await rig.ask("GET", PATH + "/recordings", bot())
    assert (409, "ambiguous", ["a", "b"]) == (*problem(answer), answer.json()["waddles"])
    assert 200 == (await rig.ask("GET", PATH + "/recordings?waddle=a", bot())).status_code


async def test_a_node_that_knows_no_calls_guesses_no_waddle(rig: VoiceRig) -> None:
    """After a start; who names a waddle, or has grants for one, need not wait."""
    await enter(rig, "all", "a")
    live_calls = rig.node.server.calls
    assert live_calls is not None
    async with (
        await device(rig, "all", voice_mint("all", waddle="*")) as everybody,
        await device(rig, "bob", member("bob", "b")) as bob,
    ):
        live_calls.live_calls.loaded = trio.Event()
        for kind in ("voice_join", "voice_leave"):
            refused = await everybody.request(kind, {"channelId": ID})
            assert "store_unavailable" == refused["payload"]["code"]
        named = await everybody.request("voice_join", {"channelId": ID, "waddleId": "a"})
        assert ["all"] == [person["userId"] for person in named["participants"]]
        other = await bob.request("voice_join", {"channelId": ID})
        assert "not_found" == other["payload"]["code"]


async def device(rig: VoiceRig, user: str, token: str, node: int = 0) -> Device:
    found = await Device.open(rig.nodes[node].port)
    await found.auth(token, f"{user}-phone")
    return found


async def test_sockets_hear_of_their_own_waddle(rig: VoiceRig) -> None:
    """Joining, watching, speaking and leaving mean the channel of the grants, on both nodes."""
    await enter(rig, "ann", "a")
    await enter(rig, "bob", "b")
    async with (
        await device(rig, "ann", member("ann", "a")) as ann,
        await device(rig, "bob", member("bob", "b"), node=1) as bob,
        await device(rig, "all", voice_mint("all", waddle="*")) as everybody,
    ):
        for one, user, waddle in ((ann, "ann", "a"), (bob, "bob", "b")):
            state = await one.request("voice_join", {"channelId": ID})
            assert (ID, waddle) == (state["channelId"], state["waddleId"])
            assert [user] == [person["userId"] for person in state["participants"]]
        refused = await everybody.request("voice_watch", {"channelId": ID})
        assert "ambiguous" == refused["payload"]["code"]
        assert ["a", "b"] == refused["payload"]["details"]["waddles"]
        watched = await everybody.request("voice_watch", {"channelId": ID, "waddleId": "b"})
        assert "b" == watched["waddleId"]
        await ann.send("speaking", {"channelId": ID, "isSpeaking": True})
        await bob.send("speaking", {"channelId": ID, "isSpeaking": True})
        heard = await everybody.receive("speaking_update")
        assert ("b", "bob") == (heard["waddleId"], heard["userId"])
        left = await bob.request("voice_leave", {"channelId": ID, "waddleId": "a"})
        assert ("a", []) == (left["waddleId"], left["participants"])


async def test_leaving_shows_no_call_to_strangers(rig: VoiceRig) -> None:
    """It needs no grant, and so tells nothing."""
    await enter(rig, "ann", "a")
    async with await device(rig, "eve", member("eve", "e")) as eve:
        for body in ({"channelId": ID}, {"channelId": ID, "waddleId": "a"}):
            state = await eve.request("voice_leave", body)
            assert [] == state.get("participants", [])


async def test_a_revocation_names_ids_and_waddles(redis_server: RedisServer) -> None:
    """Of the calls in which the provider has not removed the user yet; never keys."""
    async with voice_server(redis_server.url, voice_retry=0.2) as rig:
        await enter(rig, "bob", "a")
        await enter(rig, "ann", "a")
        await enter(rig, "ann", "b")

        async def indexed() -> bool:
            return len(await rig.voice.evidence.calls_of("ann")) == 2

        await rig.until(indexed, "both calls are in the user's index")
        await rig.sim.faults(status=503)
        answer = (await rig.ask("POST", "/auth/revoke", bot(), {"user_id": "ann"})).json()
        await rig.sim.faults()
    assert [ID] == answer["calls"]
    assert [("a", ID), ("b", ID)] == sorted(
        (one["waddle_id"], one["channel_id"]) for one in answer["channels"]
    )


async def test_lists_of_devices_name_the_waddle(rig: VoiceRig) -> None:
    """Beside the channel of a call, by every way to such a list; else neither is there."""
    await enter(rig, "ann", "a")
    await enter(rig, "bob", "b")
    async with await device(rig, "bob", member("bob", "b")) as bob:
        await bob.request("voice_join", {"channelId": ID})
        session = bob.welcome["session_id"]
        listed = (await bob.request(12, {}))["payload"]["devices"]
        token = member("bob", "b")
        rest = (await rig.ask("GET", f"/session/{session}/devices", token)).json()["devices"]
        admin = voice_mint("root", Role.ADMIN)
        seen = (await rig.ask("GET", f"/admin/sessions/{session}", admin)).json()["devices"]
        for one in (listed[0], rest[0], seen[0]):
            assert (ID, "b") == (one["in_call"], one["waddle_id"])
        await bob.request("voice_leave", {"channelId": ID})
        gone = (await bob.request(12, {}))["payload"]["devices"]
        assert not {"in_call", "waddle_id"} & set(gone[0])


async def test_the_audit_log_names_the_waddle(redis_server: RedisServer, tmp_path: Path) -> None:
    """Of what was done, read or refused; a look at another waddle's channel is another look."""
    path = tmp_path / "audit.log"
    admin = voice_mint("root", Role.ADMIN)
    async with voice_server(redis_server.url, audit_log=str(path)) as rig:
        await enter(rig, "ann", "a")
        await enter(rig, "bob", "b")
        for waddle in ("a", "b", "a"):
            await rig.ask("GET", f"{PATH}?waddle={waddle}", admin)
        await rig.ask("GET", PATH, admin)
        await rig.ask("POST", f"{PATH}/leave", member("bob", "b"), {})
        await rig.ask("POST", f"{PATH}/leave?waddle=a", member("bob", "b"), {})
        await rig.ask("GET", f"{PATH}/recordings?waddle=b", bot())
        await rig.ask("GET", f"{PATH}/recordings?waddle=b", admin)
        await rig.ask("POST", f"{PATH}/end?waddle=a", bot())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [
        ("call_read", 200, ID, "a"),
        ("call_read", 200, ID, "b"),
        ("call_read", 409, ID, None),
        ("call_left", 200, ID, "b"),
        ("call_left", 403, ID, "a"),
        ("recordings_read", 200, ID, "b"),
        ("call_ended", 200, ID, "a"),
    ] == [
        (line["action"], line["status"], line["channel_id"], line.get("waddle_id"))
        for line in lines
    ]


async def test_events_name_the_waddle(rig: VoiceRig) -> None:
    """Both calls begin under one id, and each event says whose."""

    async def written() -> str:
        answer = await rig.ask("GET", "/events?after=latest", bot())
        return str(answer.json().get("cursor", ""))

    cursor = await rig.until(written, "every node writes events")
    await enter(rig, "ann", "a")
    await enter(rig, "bob", "b", node=1)
    found: set[tuple[str, str]] = set()

    async def both() -> bool:
        page = await rig.ask("GET", f"/events?after={cursor}&kind=participant.joined", bot())
        rows = page.json().get("events", [])
        found.update((row["channel_id"], row["waddle_id"]) for row in rows)
        return len(found) == 2

    await rig.until(both, "two events")
    assert {(ID, "a"), (ID, "b")} == found
    for query, users in (
        (f"channel={ID}", ["ann", "bob"]),
        ("waddle=b", ["bob"]),
        (f"channel={ID}&waddle=a", ["ann"]),
        ("channel=other&waddle=a", []),
        ("waddle=c", []),
    ):
        where = f"/events?after={cursor}&kind=participant.joined&{query}"
        rows = (await rig.ask("GET", where, bot())).json()["events"]
        assert users == sorted(row["user_id"] for row in rows), query


def test_a_record_knows_its_public_id() -> None:
    """The key is nobody's business."""
    assert "lobby" == ChannelRecord(qualified_key("b", "lobby")).public_id


async def test_the_audit_log_tells_the_channels_apart(
    redis_server: RedisServer, tmp_path: Path
) -> None:
    """A look into one waddle's call is none into another's; who is muted or sent away is named."""
    path = tmp_path / "audit.log"
    root = voice_mint("root", Role.ADMIN)
    async with voice_server(redis_server.url, audit_log=str(path)) as rig:
        for user, waddle in (("ann", "a"), ("bob", "b")):
            await enter(rig, user, waddle)
        for waddle in ("a", "b", "a"):
            for part in ("", "/timeline", "/history", "/recordings"):
                await rig.ask("GET", f"{PATH}{part}?waddle={waddle}", root)
        await rig.ask("POST", f"{PATH}/mute?waddle=a", root, {"userId": "ann"})
        await rig.ask("POST", f"{PATH}/leave?waddle=b", root, {"userId": "bob"})
        await rig.ask("PUT", f"{PATH}/config?waddle=b", root, {})
        await rig.ask("POST", f"{PATH}/prewarm", root, {"waddleId": "a"})
        await enter(rig, "eve", "c", channel="alone")
        await rig.ask("GET", "/voice/channels/alone", root)
    written = [json.loads(line) for line in path.read_text().splitlines()]

    looks = ["call_read", "recordings_read"]
    assert [
        *[(action, waddle, None) for waddle in "ab" for action in looks],
        ("call_muted", "a", "ann"),
        ("call_left", "b", "bob"),
        ("call_configured", "b", None),
        ("call_prewarmed", "a", None),
        ("call_read", "c", None),
    ] == [(line["action"], line["waddle_id"], line.get("user_id")) for line in written]
