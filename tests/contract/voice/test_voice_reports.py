"""Webhooks from the stand-in provider to the adapters: signed, read, and with every fault."""

import json
import time
from typing import Any

import httpx
import jwt
import pytest
import trio.testing

from support.voice import sim_kit
from support.voice.sim_kit import Inbox, Rig, kind_of
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.events import ParticipantJoined
from syncbridge.voice.provider.records import (
    Permissions,
    RefusalReason,
    SessionRequest,
    TokenHolder,
    Verified,
    WebhookRefused,
)
from syncbridge_server.voice.provider.calling import ProviderCalls
from syncbridge_server.voice.provider.rsa_signatures import RsaSignatures
from syncbridge_server.voice.provider.rtk import HOOKS, RtkProvider
from syncbridge_tools.rtk_sim.reports import ALL_ELSE, RsaSigner

REQUEST = SessionRequest("lounge", max_participants=10)
STARTED = {"rtk": "session.started", "cloudflare": "meeting.started"}
JOINED = {"rtk": "participant.joined", "cloudflare": "meeting.participantJoined"}
both = pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
RSA_KEY = """-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA64wIXTM3Bmn62uadmoI2
xLmcanuEd0TfAYewRAuMMBSUysuttW5oKoN9aTksOslH2kSKtQRP8AG18gH0PUq8
wymxqnkWsKRoRGodkGtulWtlHsyrhRFEaN1Nkx+QcE7nPgh7v/+zSJBNGJRP5opR
HkRTmcwNOEeVowlOH6qwudqT1ii5X20wCVU2GV83isrz6GwB5kWfqFaWESQliGkq
UmbYFQT5uOXHwZAdsFDcIU2dxOYare20wsIpQA3wtykjeIa9MKtV3nypzBsKs1u2
pK1vM52VvBqC8lk87pmMnGP5iqqlf7QELePneJpssF8zaFPvVEQazrHnFSfQpyhI
cwIDAQAB
-----END PUBLIC KEY-----
"""
RSA_BODY = (
    b'{"event":"meeting.started","meeting":{"id":"50c8940e-1b97-402a-97d6-2708b7feca41",'
    b'"sessionId":"05e57591-d89e-45c9-ae44-08dc1eaad0e0","status":"LIVE"}}'
)
RSA_SIGNATURE = (
    "ZUu0jBIlR1WNUnccajK34YF3tbfTbvR+nr/hpFWywd2Mr22Z4Lv8qWVwlfhOJKnEwUJp/L3I5zivk0jBDHfKt1zpyg1V"
    "3eXbfn1RbKGDZGHMehB0LD6Ydr//rgwC5NoC4RBAA8TB4EzNQ090p4W+k0apYQ/s23bhhv3zmFjHYuHUyxOzCNWFQwSV"
    "/h8KZdBifhuWWMa131yVFgBF5UpxjkA9BHhPxS+DrJ4ERHbvjwvqKE8B/IXSE2MXS7rWe2ZOgm+cye/GBZDUjwOHGhHB"
    "R0tsGIvCMl+tE0XOR3H+4JWJqxNx0Hhn3QH5f+DAVfuT/2ykSEK44+4ygpg8ORcLDw=="
)


async def listening(rig: Rig, kind: str, box: Inbox) -> str:
    """A session whose events go to the inbox."""
    provider = rig.provider(kind)
    assert box.url == (await provider.register_webhook(box.url)).url
    return (await provider.create_session(REQUEST, "call-1")).id


@both
async def test_a_webhook_is_verified_and_read(kind: str) -> None:
    """What the provider sent is believed, and says who joined which session."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        await rig.move(session_id, "alice")
        await box.next()
        headers, body = await box.next()
        verdict = await rig.provider(kind).verify_webhook(headers, body, time.time())
        events = rig.provider(kind).parse_webhook(body)

        assert isinstance(verdict, Verified)
        assert isinstance(events, list)
        assert isinstance(events[0], ParticipantJoined)
        assert (session_id, "alice") == (events[0].session_id, events[0].user_id)


@both
async def test_registering_twice_is_one_registration(kind: str) -> None:
    """The same URL again answers the same id."""
    async with sim_kit.rig() as rig:
        provider = rig.provider(kind)
        made = [await provider.register_webhook("http://127.0.0.1:9/x") for _ in "12"]

        assert made[0] == made[1]
        assert 1 == len((await rig.truth())["webhooks"])


@both
async def test_a_forged_webhook_is_refused(kind: str) -> None:
    """A body that is not the one that was signed."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        await rig.faults(webhooks=["forged"])
        await rig.move(session_id, "alice")
        headers, body = await box.next()
        verdict = await rig.provider(kind).verify_webhook(headers, body, time.time())

        assert WebhookRefused(RefusalReason.MISMATCH) == verdict


@both
async def test_a_repeated_webhook_has_the_same_id(kind: str) -> None:
    """Both copies are believed and are known to be one delivery."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        await rig.faults(webhooks=["repeated"])
        await rig.move(session_id, "alice")
        provider = rig.provider(kind)
        verdicts = [await provider.verify_webhook(*await box.next(), time.time()) for _ in "12"]

        assert isinstance(verdicts[0], Verified)
        assert verdicts[0] == verdicts[1]


@both
async def test_webhooks_that_fail_are_sent_again(kind: str) -> None:
    """After a 503 the same delivery comes again; after a 200 it does not."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        box.answers = [503]
        await rig.move(session_id, "alice")
        first, again, other = [await box.next() for _ in range(3)]

        assert first == again
        assert [STARTED[kind], JOINED[kind]] == [kind_of(again[1]), kind_of(other[1])]


@both
async def test_webhooks_come_in_the_wrong_order(kind: str) -> None:
    """Reordered: the second of two overtakes the first."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        await rig.faults(webhooks=["reordered", "late"], webhook_delay_ms=10)
        await rig.move(session_id, "alice")
        kinds = [kind_of((await box.next())[1]) for _ in range(2)]

        assert [JOINED[kind], STARTED[kind]] == kinds


@both
async def test_what_is_held_back_comes_when_the_faults_change(kind: str) -> None:
    """Reordered, and nothing comes after the third of them: it is told all the same."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        await rig.faults(webhooks=["reordered"])
        await rig.move(session_id, "alice")
        await rig.move(session_id, "bob")
        await box.next()
        await box.next()
        await rig.faults()

        assert b"bob" in (await box.next())[1]


async def test_each_url_is_reordered_for_itself() -> None:
    """Two URLs: what one waits for is not sent to the other, and both get everything."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as one, sim_kit.inbox() as two:
        session_id = await listening(rig, "rtk", one)
        await rig.provider("rtk").register_webhook(two.url)
        await rig.faults(webhooks=["reordered"])
        await rig.move(session_id, "alice")
        kinds = [[kind_of((await box.next())[1]) for _ in range(2)] for box in (one, two)]

        assert [[JOINED["rtk"], STARTED["rtk"]]] * 2 == kinds


@pytest.mark.parametrize("wrong", [{"enabled": False}, {"events": ["meeting.started"]}])
async def test_a_registration_that_is_not_right_is_put_right(wrong: dict[str, Any]) -> None:
    """Switched off, or for other events: the same registration, and the events come."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        provider = rig.provider("cloudflare")
        first = await provider.register_webhook(box.url)
        headers = {"authorization": f"Bearer {sim_kit.KEY}"}
        path = f"/client/v4/accounts/account/realtime/kit/app/webhooks/{first.id}"
        changed = await rig.client.patch(rig.url + path, json=wrong, headers=headers)
        session_id = (await provider.create_session(REQUEST, "call-1")).id
        again = await provider.register_webhook(box.url)
        await rig.move(session_id, "alice")
        kinds = [kind_of((await box.next())[1]) for _ in range(2)]

        assert (200, first) == (changed.status_code, again)
        assert [STARTED["cloudflare"], JOINED["cloudflare"]] == kinds


async def test_a_registration_that_somebody_made_just_now_is_found() -> None:
    """It was not in the list, and to make it is a conflict: it is looked for again."""
    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        first = await provider.register_webhook("http://127.0.0.1:9/x")
        await rig.faults(lists="empty", count=1)

        assert first == await provider.register_webhook("http://127.0.0.1:9/x")


@both
async def test_lost_webhooks_do_not_come(kind: str) -> None:
    """What happens while webhooks are lost is never told; what happens later is."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        session_id = await listening(rig, kind, box)
        await rig.faults(webhooks=["lost"])
        await rig.move(session_id, "alice")
        await rig.move(session_id, "bob")
        await trio.testing.wait_all_tasks_blocked(0.05)
        await rig.faults()
        await rig.move(session_id, "carol")

        assert b"carol" in (await box.next())[1]


async def test_each_session_may_have_its_own_urls() -> None:
    """The specification's adapter asks for four events by name, and for all others at one URL."""
    async with sim_kit.rig() as rig, sim_kit.inbox() as box:
        public = box.url.removesuffix("/rtk-webhook")
        calls = ProviderCalls(rig.client, rig.url, sim_kit.KEY, RequestBudget(1000, 1000))
        await RtkProvider(calls, public_url=public).create_session(REQUEST, "call-1")
        hooks = rig.sim.world.rooms["call-1"].hooks
        for action in ("join", "speak", "fall_silent"):
            await rig.move("call-1", "alice", action)
        told = [(await box.next())[1] for _ in range(4)]
        spoken = [json.loads(body).get("isSpeaking") for body in told]

        own = {name: public + path for name, path in HOOKS.items()}
        assert {**own, ALL_ELSE: box.url} == hooks
        assert ["session.started", "participant.joined"] == [kind_of(body) for body in told[:2]]
        assert ["participant.speaking"] * 2 == [kind_of(body) for body in told[2:]]
        assert [None, None, True, False] == spoken


@pytest.mark.parametrize("url", ["http://10.0.0.1/x", "http://example.com/", "ftp://[::1]/", 1])
async def test_the_sim_reports_to_this_machine_only(url: Any) -> None:
    """Other hosts are refused unless they were allowed."""
    async with sim_kit.rig() as rig:
        headers = {"authorization": f"Bearer {sim_kit.KEY}"}
        ask = rig.url + "/webhooks"
        response = await rig.client.post(ask, json={"url": url}, headers=headers)

        assert 422 == response.status_code
        assert [] == (await rig.truth())["webhooks"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'{"session": 1}', b"x" * 70_000])
@pytest.mark.parametrize("path", ["/sim/participants", "/sessions", "/sim/faults"])
async def test_the_sim_survives_bad_input(path: str, content: bytes) -> None:
    """Bad bodies are client errors; only faults may be empty."""
    async with sim_kit.rig() as rig:
        headers = {"authorization": f"Bearer {sim_kit.KEY}"}
        response = await rig.client.post(rig.url + path, content=content, headers=headers)

        good = path == "/sim/faults" and content == b""
        assert good == (response.status_code == 200)
        assert 500 > response.status_code


async def test_reset_forgets_everything() -> None:
    """After a reset the stand-in is as it was at its start."""
    async with sim_kit.rig() as rig:
        fresh = await rig.truth()
        await rig.provider("rtk").create_session(REQUEST, "a")
        await rig.faults(status=503)
        changed = await rig.truth()
        await rig.post("/sim/reset", {})

        assert fresh != changed
        assert fresh == await rig.truth()


def published(pem: str, asked: list[int]) -> httpx.AsyncClient:
    """A client to a provider that publishes a key; counts how often it is asked."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        return httpx.Response(200, json={"success": True, "data": {"publicKey": pem}})

    return httpx.AsyncClient(transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("signature", "body", "reason"),
    [
        (RSA_SIGNATURE, RSA_BODY, None),
        (RSA_SIGNATURE, RSA_BODY + b" ", RefusalReason.MISMATCH),
        ("AAAA", RSA_BODY, RefusalReason.MISMATCH),
        ("*", RSA_BODY, RefusalReason.MALFORMED),
        ("é", RSA_BODY, RefusalReason.MALFORMED),
        ("A" * 4096, RSA_BODY, RefusalReason.MALFORMED),
        ("", RSA_BODY, RefusalReason.MISSING),
    ],
)
async def test_rsa_signatures(signature: str, body: bytes, reason: RefusalReason | None) -> None:
    """The raw bytes count; what is no signature is refused with its reason."""
    async with published(RSA_KEY, []) as client:
        verdict = await RsaSignatures(client).verify({"rtk-signature": signature}, body)

        assert reason == (verdict.reason if isinstance(verdict, WebhookRefused) else None)


async def test_forged_webhooks_do_not_make_us_fetch_keys() -> None:
    """Signatures that do not fit make us fetch the key at most once in ten seconds."""
    asked: list[int] = []
    now = [0.0]
    async with published(RSA_KEY, asked) as client:
        signatures = RsaSignatures(client, clock=lambda: now[0])
        for _ in range(5):
            await signatures.verify({"rtk-signature": "AAAA"}, RSA_BODY)
        now[0] = 9.0
        await signatures.verify({"rtk-signature": "AAAA"}, RSA_BODY)
        soon = len(asked)
        now[0] = 11.0
        await signatures.verify({"rtk-signature": "AAAA"}, RSA_BODY)

        assert (1, 2) == (soon, len(asked))


async def test_a_key_that_was_changed_refuses_nothing_for_good() -> None:
    """Signed with the new key: sent again until that was fetched, and refused by no older one."""
    old, new = sim_kit.signer(), RsaSigner()
    now, published_now, good = [0.0], [old.public_pem], new.sign(RSA_BODY)

    def answer(request: httpx.Request) -> httpx.Response:
        pem = published_now[0]
        return httpx.Response(200 if pem else 500, json={"data": {"publicKey": pem}})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        signatures = RsaSignatures(client, clock=lambda: now[0])

        async def heard(at: float, pem: str, signature: str) -> RefusalReason | None:
            now[0], published_now[0] = at, pem
            verdict = await signatures.verify({"rtk-signature": signature}, RSA_BODY)
            return verdict.reason if isinstance(verdict, WebhookRefused) else None

        assert None is await heard(0.0, old.public_pem, old.sign(RSA_BODY))
        assert RefusalReason.MISMATCH is await heard(1.0, new.public_pem, "AAAA")
        assert RefusalReason.UNVERIFIABLE is await heard(5.0, new.public_pem, good)
        assert RefusalReason.UNVERIFIABLE is await heard(100.0, "", good)
        assert RefusalReason.UNVERIFIABLE is await heard(105.0, new.public_pem, good)
        assert None is await heard(111.0, new.public_pem, good)
        assert RefusalReason.MISMATCH is await heard(130.0, new.public_pem, "AAAA")


@pytest.mark.parametrize("pem", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\n"])
async def test_without_a_key_nothing_can_be_said(pem: str) -> None:
    """The provider's key cannot be had: not its fault, so it is to send again."""
    async with published(pem, []) as client:
        verdict = await RsaSignatures(client).verify({"rtk-signature": RSA_SIGNATURE}, RSA_BODY)

        assert WebhookRefused(RefusalReason.UNVERIFIABLE) == verdict


@pytest.mark.parametrize("document", [b"[" * 10_000, b'{"data": ' * 5_000])
async def test_a_key_document_of_any_depth_is_no_fault_of_ours(document: bytes) -> None:
    """Nested too deeply to be read: as without a key."""
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=document))
    async with httpx.AsyncClient(transport=transport) as client:
        verdict = await RsaSignatures(client).verify({"rtk-signature": RSA_SIGNATURE}, RSA_BODY)

        assert WebhookRefused(RefusalReason.UNVERIFIABLE) == verdict


async def test_a_minted_token_says_what_the_specification_says() -> None:
    """Signed with our secret: user, room, permissions and an end within an hour."""
    async with sim_kit.rig() as rig:
        wanted = Permissions(can_speak=False, can_record=True)
        provider = rig.provider("rtk-minted")
        issued = await provider.issue_token("room-1", TokenHolder("alice"), wanted)
        claims = jwt.decode(issued.token, sim_kit.SECRET, algorithms=["HS256"])

        assert claims == {
            "sub": "alice",
            "room": "room-1",
            "exp": int(issued.expires_at),
            "permissions": {
                "canPublish": False,
                "canSubscribe": True,
                "canRecord": True,
                "canScreenShare": False,
                "maxVideoBitrate": 0,
                "maxAudioBitrate": 96_000,
                "maxBitrate": 128_000,
            },
        }
