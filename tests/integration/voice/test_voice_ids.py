"""Ids of channels and waddles in any script, through the whole life of a call.

Real HTTP on both engines, a real Redis, the stand-in provider in both dialects.
"""

from typing import Any
from urllib.parse import quote

import httpx
import pytest
import trio

from support.redis_servers import RedisServer
from support.server_kit import bearer
from support.voice import sim_kit
from support.voice.voice_kit import EVERYTHING, VoiceRig, voice_mint, voice_server
from syncbridge.identity import Role
from syncbridge.voice.provider.records import Permissions, SessionRequest, TokenHolder

IDS = {
    "an accent": "café",
    "the same, decomposed": "cafe\u0301",
    "right to left": "שלום עולם",
    "marks of direction": "\u202eabc\u2066d\u2069",
    "an emoji of several code points": "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈",
    "beyond the first plane": "𝔠𝔥𝔞𝔫𝔫𝔢𝔩\U0010ffff",
    "combining marks": "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿",
    "slashes": "a/b//leave",
    "what paths are made of": "../%2F?#;=&+ .",
    "a name of a route": "history",
    "what Redis and JSON are made of": '{"}:*[a]\\\'"',
    "separators of lines and spaces": "\u2028\u2029\u00a0\u3000 ",
    "a star": "*",
    "one byte": "0",
    "as long as may be": "ż" * 128,
    "what looks like a digest": "x-" + "0" * 32,
}
UNFIT = {
    "nothing": "",
    "a byte too long": "c" * 257,
    "as many, in fewer letters": "ż" * 128 + "c",
    "NUL": "a\x00b",
    "a line end": "a\nb",
    "DEL": "a\x7fb",
    "U+0085": "a\x85b",
    "U+009F": "\x9f",
}


def path_of(channel: str, rest: str = "") -> str:
    return f"/voice/channels/{quote(channel, safe='')}{rest}"


async def ask(rig: VoiceRig, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """A request of a service that must succeed."""
    answer = await rig.ask(method, path, voice_mint("bot", Role.SERVICE), body)
    assert 200 == answer.status_code, (path, answer.text)
    document: dict[str, Any] = answer.json()
    return document


async def live(rig: VoiceRig, channel: str) -> None:
    """A whole life: token, joined, shown, moved, left, ended, remembered."""
    waddle, own = f"w {channel}"[:60], voice_mint("ann", channel=channel, permissions=EVERYTHING)
    body = {"waddleId": waddle, "channelId": channel}
    token = await rig.ask("POST", "/api/voice/token", own, body)
    assert 200 == token.status_code, (channel, token.text)
    old = token.json()["sessionId"]
    assert channel == await rig.voice.channels.channel_of(old)
    await rig.sim.move(old, "ann")
    await rig.until_channel(channel, lambda c: c.call is not None and c.call.users == ("ann",))
    answer = await rig.ask("GET", path_of(channel), own)
    assert 200 == answer.status_code, (channel, answer.text)
    shown = answer.json()
    assert (channel, waddle, old) == (
        shown["channelId"],
        shown["waddleId"],
        shown["session"]["sessionId"],
    )
    moved = await ask(rig, "POST", path_of(channel, "/migrate"))
    assert channel == moved["channelId"]
    await rig.sim.move(moved["sessionId"], "ann")
    await rig.sim.move(old, "ann", "leave")
    await rig.until_channel(channel, lambda c: c.record.previous is None and c.call is not None)
    left = await rig.ask("POST", path_of(channel, "/leave"), own)
    assert (200, True) == (left.status_code, left.json()["left"]), left.text
    await rig.until_channel(channel, lambda c: c.call is not None and not c.call.users)
    assert (await ask(rig, "POST", path_of(channel, "/end")))["ended"]
    history = await ask(rig, "GET", path_of(channel, "/history"))
    assert [(channel, moved["sessionId"])] == [
        (history["channelId"], call["sessionId"]) for call in history["calls"]
    ]
    await ask(rig, "GET", path_of(channel, "/recordings"))
    rooms = await rig.rooms()

    async def over() -> bool:
        rooms.update(await rig.rooms())
        return bool(rooms[old]["ended"] and rooms[moved["sessionId"]]["ended"])

    await rig.until(over, f"both sessions of {channel!r} are ended")


@pytest.mark.parametrize("kind", ["rtk", "rtk-minted", "cloudflare"])
async def test_an_id_in_any_script_lives(redis_server: RedisServer, kind: str) -> None:
    """Each id is a channel of its own, from the token to the end; nothing crashes meanwhile."""
    async with voice_server(redis_server.url, kind=kind) as rig:
        with trio.fail_after(120):
            async with trio.open_nursery() as nursery:
                for channel in IDS.values():
                    nursery.start_soon(live, rig, channel)
        figures = await ask_admin(rig)
        truth = await rig.sim.truth()

        assert (0, 2 * len(IDS)) == (figures["channels"], truth["created"])
        assert {name.isascii() for name in truth["rooms"]} == {True}
        assert max(map(len, truth["rooms"])) <= 128


async def ask_admin(rig: VoiceRig) -> dict[str, Any]:
    answer = await rig.ask("GET", "/admin/metrics/voice", voice_mint("root", Role.ADMIN))
    document: dict[str, Any] = answer.json()
    return document


async def test_what_is_no_id_is_refused(redis_server: RedisServer) -> None:
    """422 that names the member and says what would be accepted; nothing is opened."""
    async with voice_server(redis_server.url) as rig:
        token = voice_mint("root", Role.ADMIN)
        for unfit in UNFIT.values():
            for member in ("channelId", "waddleId"):
                body = {"waddleId": "w", "channelId": "c", member: unfit}
                answer = await rig.ask("POST", "/api/voice/token", token, body)
                assert (422, "invalid_field", member) == told(answer), (unfit, answer.text)
                assert "256 bytes of UTF-8 without control characters" in answer.json()["detail"]
        body = {"waddleId": "w"}
        for path in [*(path_of(unfit) for unfit in UNFIT.values() if unfit), *UNDECODABLE]:
            for method, rest in DOORS:
                answer = await rig.ask(
                    method, path + rest, token, body if method == "POST" else None
                )
                assert (422, "invalid_field", "channel_id") == told(answer), (
                    path,
                    rest,
                    answer.text,
                )
        nothing = await rig.ask("GET", "/voice/channels/", token)
        assert 308 == nothing.status_code  # the list of channels has no slash behind it
        assert nothing.headers["location"].endswith("/voice/channels")
        halves = await raw_body(rig, rb'{"waddleId": "w", "channelId": "a\ud83d"}')
        assert (400, "invalid_json") == (halves.status_code, halves.json()["code"])
        assert 0 == (await rig.sim.truth())["created"]


UNDECODABLE = [f"/voice/channels/{text}" for text in ("%ff", "a%ED%A0%BDb", "%C0%AF", "%E2%82")]
"""Bytes that are not UTF-8, half of a surrogate pair, a slash in two bytes, a letter cut off."""
DOORS = [
    ("GET", ""),
    ("GET", "/history"),
    ("GET", "/recordings"),
    ("POST", "/leave"),
    ("POST", "/migrate"),
    ("POST", "/prewarm"),
    ("POST", "/end"),
]


def told(answer: httpx.Response) -> tuple[int, str, str]:
    document = answer.json()
    return answer.status_code, document["code"], document.get("field", "")


async def raw_body(rig: VoiceRig, body: bytes) -> httpx.Response:
    headers = bearer(voice_mint("ann")) | {"content-type": "application/json"}
    return await rig.http.post(rig.url + "/api/voice/token", content=body, headers=headers)


async def test_two_spellings_are_two_channels(redis_server: RedisServer) -> None:
    """Ids are compared by code points: a grant for the one does not open the other."""
    async with voice_server(redis_server.url) as rig:
        grant = voice_mint("ann", channel="café", permissions=EVERYTHING)
        statuses = [
            (await rig.ask("POST", "/api/voice/token", grant, body)).status_code
            for body in ({"waddleId": "w", "channelId": id_} for id_ in ("cafe\u0301", "café"))
        ]
        shown = [await rig.ask("GET", path_of(id_), grant) for id_ in ("cafe\u0301", "café")]

        assert [403, 200] == statuses == [answer.status_code for answer in shown]


async def test_an_encoded_slash_is_no_separator(redis_server: RedisServer) -> None:
    """`a%2Fb` is the channel `a/b`, `a%252Fb` is `a%2Fb`, and `a/b` is no path of ours."""
    async with voice_server(redis_server.url) as rig:
        await rig.token("ann", "a/b")
        await rig.token("ann", "a%2Fb")
        service = voice_mint("bot", Role.SERVICE)
        asked = ["a%2Fb", "a%2fb", "%61%2F%62", "a%252Fb"]
        found = [await rig.ask("GET", f"/voice/channels/{id_}", service) for id_ in asked]

        assert ["a/b", "a/b", "a/b", "a%2Fb"] == [one.json()["channelId"] for one in found]
        assert 404 == (await rig.ask("GET", "/voice/channels/a/b", service)).status_code


@pytest.mark.parametrize("key", ["waddle_café_1_1", "waddle_a b_1_1", "waddle_שלום_1_1"])
async def test_a_room_that_an_older_release_has_named_is_asked_for(key: str) -> None:
    """Keys that are stored already may have any text, and stand in headers and paths."""
    async with sim_kit.rig() as rig:
        provider = rig.provider("rtk")
        session = await provider.create_session(SessionRequest("café", "w", 10, False, False), key)
        token = await provider.issue_token(session.id, TokenHolder("ann", "ann"), Permissions())
        await provider.end_session(session.id)

        assert (key, True) == (session.id, bool(token.token))
        assert (await rig.truth())["rooms"][key]["ended"]
