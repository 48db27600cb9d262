"""Webhooks over HTTP: what is believed, what is answered, and what becomes of it."""

import gzip
import json
import time
import uuid
import zlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.server_kit import bearer, mint, running_node
from support.voice.sim_kit import SECRET
from support.voice.webhook_kit import KINDS, Site, event, eventually, signed, site, standard
from syncbridge.identity import Role
from syncbridge_server.http.support.paths import PATHS

both = pytest.mark.parametrize("kind", KINDS)
OTHER = "another-secret-that-nobody-else-has-00"


async def metric(one: Site, name: str) -> float:
    """The value of one line of /metrics."""
    text = (await one.rig.client.get(one.nodes[0].url + "/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith(name + " ")]
    return float(lines[0].split()[-1])


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


@both
async def test_the_provider_reports_who_comes_and_goes(kind: str) -> None:
    """Webhooks of the stand-in provider take effect on a channel."""
    async with site(kind) as one:
        session = await one.open("c")
        await one.report_to(one.nodes[0])
        await one.rig.move(session, "ann")
        await one.rig.move(session, "bob")
        await one.until_users("c", "ann", "bob")
        await one.rig.move(session, "ann", "leave")
        await one.until_users("c", "bob")

        outcomes = {d["outcome"] for d in (await one.rig.truth())["deliveries"]}
        assert {"200"} == outcomes


@both
@pytest.mark.parametrize("fault", ["repeated", "reordered", "late"])
async def test_a_provider_with_faults_tells_the_same(kind: str, fault: str) -> None:
    """Twice, in the wrong order, or late: the same people are in the call."""
    async with site(kind) as one:
        session = await one.open("c")
        await one.report_to(one.nodes[0])
        await one.rig.faults(webhooks=[fault], webhook_delay_ms=30)
        for user in ("ann", "bob"):
            await one.rig.move(session, user)
        await one.rig.move(session, "ann", "leave")
        await one.rig.faults()
        await one.rig.move(session, "eve")

        await one.until_users("c", "bob", "eve")


async def test_a_session_that_the_provider_has_ended() -> None:
    """Its end is reported, and the provider does not know it any more: the call is over."""
    async with site() as one:
        session = await one.open("c")
        await one.report_to(one.nodes[0])
        await one.rig.move(session, "ann")
        await one.until_users("c", "ann")
        await one.rig.provider("rtk").end_session(session)

        async def over() -> bool:
            channel = await one.look("c")
            return channel.call is None and channel.record.room is None

        await eventually(over)


@both
async def test_a_webhook_is_kept_once(kind: str) -> None:
    """The same delivery again is 200 and does nothing."""
    async with site(kind) as one:
        session = await one.open("c")
        body = event(kind, "joined", session, "ann", "p1")
        headers = signed(kind, body)
        answers = [await one.post(body, headers) for _ in range(3)]

        assert [(200, "OK")] * 3 == [(a.status_code, a.text) for a in answers]
        assert 1 == await metric(one, 'syncbridge_webhooks_total{outcome="accepted"}')
        assert 2 == await metric(one, 'syncbridge_webhooks_total{outcome="repeated"}')
        await one.until_users("c", "ann")


@pytest.mark.parametrize("path", PATHS)
async def test_each_path_takes_every_event(path: str) -> None:
    """The event in the body counts, for it is signed."""
    async with site() as one:
        session = await one.open("c")
        answer = await one.post(event("rtk", "joined", session, "ann", "p1"), path=path)

        assert 200 == answer.status_code
        await one.until_users("c", "ann")


BODY = event("rtk", "joined", "s", "ann", "p1", 1_700_000_000)
SPACED = json.dumps(json.loads(BODY), indent=1).encode()
# The signatures are made in the test: a suite may run for longer than a signature is good.
REFUSED: list[tuple[str, str, Callable[[], dict[str, str]], bytes]] = [
    ("rtk", "missing", dict, BODY),
    ("rtk", "missing", lambda: {"rtk-signature": "AAAA"}, BODY),
    ("rtk", "mismatch", lambda: standard(BODY, OTHER), BODY),
    ("rtk", "mismatch", lambda: standard(BODY), SPACED),
    ("rtk", "mismatch", lambda: standard(BODY) | {"webhook-id": "another"}, BODY),
    ("rtk", "malformed", lambda: standard(BODY) | {"webhook-timestamp": "now"}, BODY),
    ("rtk", "stale", lambda: standard(BODY, at=time.time() - 3_000), BODY),
    ("rtk", "stale", lambda: standard(BODY, at=time.time() + 3_000), BODY),
    ("cloudflare", "missing", lambda: standard(BODY), BODY),
    ("cloudflare", "malformed", lambda: {"rtk-signature": "?"}, BODY),
    ("cloudflare", "mismatch", lambda: {"rtk-signature": "AAAA"}, BODY),
    ("cloudflare", "mismatch", lambda: signed("cloudflare", BODY), SPACED),
]


@pytest.mark.parametrize(("kind", "reason", "headers", "body"), REFUSED)
async def test_what_is_not_signed_well_is_refused(
    kind: str, reason: str, headers: Callable[[], dict[str, str]], body: bytes
) -> None:
    """401 with the reason, a challenge, and nothing is kept."""
    async with site(kind) as one:
        answer = await one.post(body, headers())

        assert (401, "webhook_signature") == code_of(answer)
        assert reason == answer.json()["reason"]
        assert "Webhook-Signature" in answer.headers["www-authenticate"]
        assert 0 == await one.voice.inbox.waiting()
        assert 1 == await metric(one, f'syncbridge_webhooks_total{{outcome="{reason}"}}')


@both
async def test_a_forged_webhook_is_refused(kind: str) -> None:
    """The stand-in signs one body and sends another: 401, and it does not come again."""
    async with site(kind) as one:
        session = await one.open("c")
        await one.report_to(one.nodes[0])
        await one.rig.faults(webhooks=["forged"])
        await one.rig.move(session, "ann")

        async def told() -> bool:
            return len((await one.rig.truth())["deliveries"]) == 2

        await eventually(told)
        assert ["401"] * 2 == [d["outcome"] for d in (await one.rig.truth())["deliveries"]]
        assert set() == await one.users("c")


async def test_secrets_can_be_rotated() -> None:
    """Of several secrets each is good, and so is a delivery signed with both."""
    async with site(voice_webhook_secrets=f"{OTHER}, {SECRET}") as one:
        session = await one.open("c")
        for secret in (SECRET, OTHER):
            body = event("rtk", "joined", session, "ann", "p1")
            assert 200 == (await one.post(body, standard(body, secret))).status_code
        body = event("rtk", "joined", session, "ann", "p1")
        headers = standard(body, OTHER * 2, "one")
        headers["webhook-signature"] += " " + standard(body, OTHER, "one")["webhook-signature"]
        assert 200 == (await one.post(body, headers)).status_code


LIMIT = 65_536
NEEDED = b'"type": "recording.ready", "sessionId": "SESSION", "recordingId": "r1"'
ODD = {
    "half of a surrogate pair": rb'{NEEDED, "x": "\ud83d"}',
    "and as the name of a member": rb'{"\ud83d": 1, NEEDED}',
    "and in an optional member": rb'{NEEDED, "url": "\ud83d"}',
    "bytes that are not UTF-8": b'{NEEDED, "x": "\xff\xfe"}',
    "a byte order mark": b"\xef\xbb\xbf{NEEDED}",
    "a number beyond every range": b'{NEEDED, "x": 1e999, "duration": -1e999}',
    "a number of 5,000 digits": b'{NEEDED, "x": ' + b"9" * 5_000 + b"}",
    "NaN and Infinity": b'{NEEDED, "x": NaN, "duration": -Infinity}',
    "nested too deeply": b'{"x": ' + b"[" * 9_000 + b"]" * 9_000 + b", NEEDED}",
    "an object nested too deeply": b'{"x": '
    + b'{"a":' * 5_000
    + b"1"
    + b"}" * 5_000
    + b", NEEDED}",
    "a member twice": b'{NEEDED, "sessionId": "SESSION", "x": 1, "x": 2}',
    "optional members of the wrong type": b'{NEEDED, "url": 7, "duration": "x", "timestamp": []}',
    "members that nobody knows": b'{NEEDED, "a": {"type": "b"}, "event": 7, "": null}',
    "beside an event that cannot be read": b'[{NEEDED}, {"type": "participant.left"}]',
}


@both
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
async def test_a_signed_webhook_with_one_odd_member_is_used(kind: str, odd: bytes) -> None:
    """The recording is there; what is not needed costs nothing but itself."""
    async with site(kind) as one:
        session = await one.open("c")
        answer = await one.post(
            odd.replace(b"NEEDED", NEEDED).replace(b"SESSION", session.encode())
        )

        async def recorded() -> bool:
            found = await one.voice.recordings.of_channel("c")
            return ["r1"] == [recording.recording_id for recording in found]

        assert 200 == answer.status_code
        await eventually(recorded)


UNREADABLE = {
    "nothing": b"",
    "no JSON": b"\x00\xff, but signed",
    "cut off": b'{"type": "recording.ready"',
    "another encoding": '{"type": "session.ended", "sessionId": "s"}'.encode("utf-16"),
    "no event": b'{"type": 7}',
    "a number": b"17",
    "a needed member is missing": b'{"type": "participant.joined", "sessionId": "s"}',
    "a needed member of the wrong type": b'{"type": "session.ended", "sessionId": ["s"]}',
    "half of a surrogate pair as an id": rb'{"type": "session.ended", "sessionId": "\ud83d"}',
    "nested, and never closed": b'"' + b"[" * 5_000,
    "too large": b'{"type": "session.ended", "sessionId": "' + b"s" * LIMIT + b'"}',
}


@both
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_is_signed_and_cannot_be_read_is_kept(kind: str, body: bytes) -> None:
    """200, and a dead letter with its bytes, once: nothing that the provider has signed is lost."""
    async with site(kind) as one:
        headers = signed(kind, body)
        answers = [await one.post(body, headers) for _ in range(2)]

        async def buried() -> bool:
            return bool((await one.voice.inbox.dead(10))[0])

        await eventually(buried)
        [letter], _ = await one.voice.inbox.dead(10)
        assert [200, 200] == [answer.status_code for answer in answers]
        assert body[:LIMIT] == letter.body
        assert letter.reason.startswith("unreadable: ")
        assert 0 == await one.voice.inbox.waiting()


def gzipped(body: bytes) -> bytes:
    return gzip.compress(body, mtime=0)


BOMB = zlib.compress(b" " * (17 * LIMIT))
WRONGLY_CODED = {
    "not coded": (BODY[:-2], "gzip", "the body is not a complete gzip stream"),
    "cut off": (gzipped(BODY)[:-9], "gzip", "the body is not a complete gzip stream"),
    "another coding": (gzipped(BODY), "zstd", "the body is not a complete zstd stream"),
    "unknown": (gzipped(BODY), "br", "Content-Encoding must be one of zstd, gzip, deflate"),
    "two": (gzipped(BODY), "gzip, gzip", "Content-Encoding must be one of zstd, gzip, deflate"),
    "too much": (BOMB, "deflate", f"unfolds to more than {16 * LIMIT} bytes"),
}


@both
@pytest.mark.parametrize("case", WRONGLY_CODED)
async def test_a_signed_body_is_not_lost_by_its_coding(kind: str, case: str) -> None:
    """Content-Encoding is not signed: what cannot be decoded is a dead letter, as it came."""
    body, coding, reason = WRONGLY_CODED[case]
    async with site(kind) as one:
        headers = signed(kind, body) | {"Content-Encoding": coding}
        answers = [await one.post(body, headers) for _ in range(2)]
        await one.until_worked_off()

        [letter], _ = await one.voice.inbox.dead(10)
        assert [200, 200] == [answer.status_code for answer in answers]
        assert (body, f"unreadable: {reason}") == (letter.body, letter.reason.partition("; ")[0])


@both
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate, gzip"])
@pytest.mark.parametrize("beside", [b"", b', {"type": "participant.left"}, 7'], ids=["all", "part"])
async def test_a_signed_body_that_can_be_read_is_used_whatever_its_coding_says(
    kind: str, coding: str, beside: bytes
) -> None:
    """It is JSON as it came, and that is what was signed."""
    async with site(kind) as one:
        body = b"[%s%s]" % (event(kind, "joined", await one.open("c"), "ann", "p1"), beside)
        answer = await one.post(body, signed(kind, body) | {"Content-Encoding": coding})

        assert 200 == answer.status_code
        await one.until_users("c", "ann")


@both
@pytest.mark.parametrize("before", [True, False], ids=["as sent", "before it was coded"])
async def test_a_coded_body_is_used(kind: str, before: bool) -> None:
    """Signed as it came or without its coding; with a signature of neither it is 401."""
    async with site(kind) as one:
        body = event(kind, "joined", await one.open("c"), "ann", "p1")
        coded = gzipped(body)
        headers = signed(kind, coded if before else body) | {"Content-Encoding": "gzip"}
        forged = signed(kind, BODY) | {"Content-Encoding": "gzip"}
        refused = [await one.post(sent, forged) for sent in (coded, coded[:-9], body)]
        answer = await one.post(coded, headers)

        assert [(401, "webhook_signature")] * 3 == [code_of(other) for other in refused]
        assert 200 == answer.status_code
        await one.until_users("c", "ann")


async def test_of_a_list_only_what_cannot_be_read_is_a_dead_letter() -> None:
    """The others take effect at once; replaying the letter does no harm to them."""
    async with site() as one:
        session = await one.open("c")
        good = json.loads(event("rtk", "joined", session, "ann", "p1"))
        await one.post(json.dumps([good, {**good, "participantId": 7}]).encode())
        await one.until_users("c", "ann")

        async def reasons() -> list[str]:
            return [letter.reason for letter in (await one.voice.inbox.dead(10))[0]]

        async def buried() -> bool:
            return bool(await reasons())

        await eventually(buried)
        assert ["unreadable: participantId is not a text of 1 to 256 characters"] == await reasons()


async def test_what_is_too_large_to_know_its_signer_is_refused() -> None:
    """413 beyond 16 times the limit, and nothing is kept."""
    async with site(webhook_bytes=1_024) as one:
        assert (413, "too_large") == code_of(await one.post(b" " * (16 * 1_024 + 1)))
        assert 0 == await one.voice.inbox.waiting()


async def test_events_without_meaning_are_answered_and_not_kept() -> None:
    """An event of a kind that we do not know, or none at all."""
    async with site() as one:
        for body in (b'{"type": "participant.waved", "sessionId": "s"}', b"[]"):
            assert 200 == (await one.post(body)).status_code
        assert 2 == await metric(one, 'syncbridge_webhooks_total{outcome="ignored"}')
        assert 0 == await one.voice.inbox.waiting()


@both
async def test_without_a_provider_no_webhook_is_believed(kind: str, redis_url: str) -> None:
    """Every one is 401, however it is signed."""
    async with running_node(redis_url) as node, node.http() as http:
        answer = await http.post("/rtk-webhook", content=BODY, headers=signed(kind, BODY))

        assert (401, "webhook_signature") == code_of(answer)


async def test_without_a_secret_no_webhook_is_believed() -> None:
    """A provider that has none configured: an empty key signs nothing."""
    async with site(voice_webhook_secrets="", rtk_secret_key="") as one:
        answer = await one.post(BODY, standard(BODY))

        assert (401, "mismatch") == (answer.status_code, answer.json()["reason"])


async def test_a_key_that_cannot_be_had_is_503() -> None:
    """It is not known whether to believe it: it is to be sent again."""
    async with site("cloudflare", cloudflare_keys_url="http://127.0.0.1:9/keys") as one:
        answer = await one.post(BODY)

        assert (503, "provider_unavailable") == code_of(answer)
        assert "retry-after" in answer.headers


@both
async def test_while_the_store_is_down_it_is_sent_again(kind: str) -> None:
    """503 while Redis is paused; the same delivery is taken when it is back."""
    async with site(kind, store_deadline=0.5) as one:
        session = await one.open("c")
        body = event(kind, "joined", session, "ann", "p1")
        headers = signed(kind, body)
        one.redis.pause()
        answer = await one.post(body, headers)
        one.redis.resume()
        assert (503, "store_unavailable") == code_of(answer)
        assert "retry-after" in answer.headers

        async def accepted() -> bool:
            return (await one.post(body, headers)).status_code == 200

        await eventually(accepted)
        await one.until_users("c", "ann")


async def test_webhooks_have_a_rate_of_their_own() -> None:
    """Above that of other requests; beyond it 503, for 429 would not be sent again."""
    async with site(request_burst=2, requests_per_second=1, webhook_burst=20) as one:
        answers = [await one.post(b"[]") for _ in range(20)]
        assert {200} == {answer.status_code for answer in answers}

    async with site(webhook_burst=2, webhooks_per_second=1) as one:
        answers = [await one.post(b"[]") for _ in range(4)]
        assert (503, "overloaded") == code_of(answers[-1])
        assert "retry-after" in answers[-1].headers


async def test_a_recording_is_shown_to_services_only() -> None:
    """Its address is neither in the channel nor told; the latest notice of it stands."""
    async with site() as one:
        session = await one.open("c")
        ready = {"type": "recording.ready", "sessionId": session, "recordingId": "r1"}
        for url in ("https://files.example/old?key=1", "https://files.example/new?key=2"):
            assert 200 == (await one.post(json.dumps(ready | {"url": url}).encode())).status_code
        await one.until_worked_off()
        path = one.nodes[0].url + "/voice/channels/c/recordings"
        shown = await one.rig.client.get(path, headers=bearer(mint("bot", Role.SERVICE)))
        refused = await one.rig.client.get(path, headers=bearer(mint("ann")))

        assert 403 == refused.status_code
        (recording,) = shown.json()["recordings"]
        assert ("r1", session) == (recording["recordingId"], recording["sessionId"])
        assert "https://files.example/new?key=2" == recording["url"]
        assert "files.example" not in repr((await one.look("c")).record)


async def test_speaking_is_handed_on() -> None:
    """Who speaks is told to whom it concerns; who began long ago, and what is overtaken, is not."""
    async with site() as one:
        session = await one.open("c")
        heard: list[tuple[str, str, bool]] = []
        one.voice.worker.on_speaking(lambda *said: heard.append(said))
        now = time.time() * 1000
        speaking = {"type": "participant.speaking", "sessionId": session, "participantId": "ann"}
        for said in (
            {"isSpeaking": True, "timestamp": now - 60_000},
            {"isSpeaking": True, "timestamp": now},
            {"isSpeaking": False, "timestamp": now - 60_000},
            [{"isSpeaking": False, "timestamp": now + 2}, {"isSpeaking": True, "timestamp": now}],
        ):
            told = [speaking | part for part in (said if isinstance(said, list) else [said])]
            await one.post(json.dumps(told).encode())
            await one.until_worked_off()

        assert [("c", "ann", True), ("c", "ann", False)] == heard


def admin() -> dict[str, str]:
    """Who may see dead letters."""
    return bearer(mint("root", Role.ADMIN))


async def dead_letters(one: Site, **query: Any) -> dict[str, Any]:
    url = one.nodes[0].url + "/admin/voice/dead-letters"
    answer = await one.rig.client.get(url, headers=admin(), params=query)
    assert 200 == answer.status_code
    return dict(answer.json())


async def test_what_cannot_be_taken_in_is_a_dead_letter() -> None:
    """Shown to admins without its secrets, taken in again, and forgotten."""
    async with site() as one:
        session = await one.open("c")
        ready = {"type": "recording.ready", "sessionId": session, "recordingId": "r1"}
        bad = {"type": "participant.joined", "sessionId": session, "participantId": "a" * 65}
        secrets = {"url": "https://u:p@files.example/a?key=1", "accessToken": "hidden"}
        await one.post(json.dumps([ready | secrets, bad]).encode())

        async def buried() -> bool:
            return bool((await dead_letters(one))["dead_letters"])

        await eventually(buried)
        (letter,) = (await dead_letters(one))["dead_letters"]
        assert "user id not acceptable" == letter["reason"]
        assert ["recording.ready", "participant.joined"] == [e["type"] for e in letter["events"]]
        assert session == letter["events"][0]["session_id"]
        assert "https://files.example/[redacted]" in letter["body"]
        assert [] == [s for s in ("u:p", "key=1", "hidden") if s in json.dumps(letter)]

        url = f"{one.nodes[0].url}/admin/voice/dead-letters/{letter['entry']}"
        http = one.rig.client
        assert 204 == (await http.post(url + "/replay", headers=admin())).status_code
        await eventually(buried)
        (again,) = (await dead_letters(one))["dead_letters"]
        assert letter["entry"] != again["entry"]
        assert 404 == (await http.delete(url, headers=admin())).status_code
        url = f"{one.nodes[0].url}/admin/voice/dead-letters/{again['entry']}"
        assert 204 == (await http.delete(url, headers=admin())).status_code
        assert [] == (await dead_letters(one))["dead_letters"]


async def test_dead_letters_are_for_admins() -> None:
    """Neither services nor users may see or move them."""
    async with site() as one:
        url = one.nodes[0].url + "/admin/voice/dead-letters"
        headers = bearer(mint("bot", Role.SERVICE))
        http = one.rig.client
        answers = [
            await http.get(url, headers=headers),
            await http.post(url + "/1-1/replay", headers=headers),
            await http.delete(url + "/1-1", headers=headers),
            await http.get(url),
        ]

        assert [403, 403, 403, 401] == [answer.status_code for answer in answers]


async def test_dead_letters_come_in_pages() -> None:
    """The latest first, each once."""
    async with site() as one:
        session = await one.open("c")
        for _ in range(5):
            bad = {"type": "participant.left", "sessionId": session, "participantId": "a" * 65}
            await one.post(json.dumps(bad).encode())
        await one.until_worked_off()
        found, cursor = [], ""
        for _ in range(3):
            page = await dead_letters(one, limit=2, cursor=cursor)
            found += [letter["entry"] for letter in page["dead_letters"]]
            cursor = page["next_cursor"]

        assert ("", 5) == (cursor, len(set(found)))
        assert found == sorted(found, reverse=True)


async def test_a_provider_is_told_our_address() -> None:
    """Several nodes that start together leave one registration."""
    url = f"http://127.0.0.1:9/{uuid.uuid4().hex}"
    async with site("cloudflare", nodes=3, worker_url=url) as one:

        async def registered() -> bool:
            return bool((await one.rig.truth())["webhooks"])

        await eventually(registered)
        for node in one.nodes:
            assert node.server.voice is not None
            assert node.server.voice.registration is not None
            assert await node.server.voice.registration.once()
        hooks = (await one.rig.truth())["webhooks"]
        assert 1 == len(hooks)
        assert url + "/rtk-webhook" in json.dumps(hooks)
