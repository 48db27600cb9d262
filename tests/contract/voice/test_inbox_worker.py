"""What the worker does with deliveries: effects, patience, and what it gives up."""

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from support.redis_servers import RedisServer, until
from support.voice.inbox_kit import Worker, worker
from support.voice.webhook_kit import event
from syncbridge.errors import StoreUnavailable
from syncbridge.voice.intake import apply_webhooks
from syncbridge.voice.recordings import Recorded
from syncbridge.voice.stored import WebhookDelivery
from syncbridge_server.redis.stores.recordings import MOST, keys_of
from syncbridge_server.redis.stores.voice import channel_key
from syncbridge_server.voice.webhooks import inbox_worker
from syncbridge_server.voice.webhooks.inbox_worker import ATTEMPTS

NOW = 1_700_000_000.0


@pytest.fixture
async def node() -> AsyncIterator[Worker]:
    """A worker to which every delivery comes back at once."""
    with RedisServer() as redis:
        async with worker(redis.url, "n", NOW, idle_ms=0) as running:
            await running.open("c", "s")
            yield running


async def put(node: Worker, *bodies: bytes) -> None:
    for body in bodies:
        assert await node.inbox.put(WebhookDelivery(uuid.uuid4().hex, body, int(NOW * 1000) - 250))


def joined(user: str, session: str = "s") -> bytes:
    return event("rtk", "joined", session, user, f"p-{user}", NOW - 10)


def spec(kind: str, **members: Any) -> bytes:
    return json.dumps({"type": kind, "sessionId": "s", **members}).encode()


async def reasons(node: Worker) -> list[str]:
    return [letter.reason for letter in (await node.inbox.dead(100))[0]]


async def test_the_time_to_the_effect_is_counted(node: Worker) -> None:
    """From the receipt to the acknowledgement, in seconds."""
    await put(node, joined("ann"))

    assert 1 == await node.worker.step()
    assert ([0.25], ("ann",)) == (node.effects.seconds, await node.users("c"))
    assert 0 == await node.inbox.waiting()


async def test_one_change_a_channel_and_batch(node: Worker) -> None:
    """Fifty deliveries about one channel are one write."""
    before = (await node.channels.read("c")).revision
    await put(node, *(joined(f"u{number}") for number in range(50)))
    await node.worker.step()

    assert before + 1 == (await node.channels.read("c")).revision
    assert 50 == len(await node.users("c"))


async def test_an_unknown_session_is_given_up_after_a_while(node: Worker) -> None:
    """It comes back ATTEMPTS times, and the others of its batch do not wait for it."""
    await put(node, joined("ann", "nobody's"), joined("bob"))
    for _ in range(ATTEMPTS - 1):
        await node.worker.step()
        assert (("bob",), []) == (await node.users("c"), await reasons(node))
    await node.worker.step()

    assert ["unknown session"] == await reasons(node) == node.effects.dead
    assert 0 == await node.inbox.waiting()


async def test_a_session_that_was_closed_is_no_dead_letter(node: Worker) -> None:
    """Its channel is known, and has gone on: the event has no effect, and nothing is written."""
    await node.channels.note_session("old", "c")
    before = (await node.channels.read("c")).revision
    await put(node, joined("ann", "old"))
    await node.worker.step()

    assert (0, []) == (await node.inbox.waiting(), await reasons(node))
    assert before == (await node.channels.read("c")).revision


async def test_a_channel_that_was_forgotten_is_not_made_again(node: Worker) -> None:
    """The session is remembered longer than its channel."""
    await node.channels.note_session("old", "forgotten")
    await put(node, joined("ann", "old"))
    await node.worker.step()

    assert 0 == (await node.channels.read("forgotten")).revision


@pytest.mark.parametrize("user", ["a" * 65, "a\nb", "ä" * 33])
async def test_a_user_id_that_cannot_be_ours_is_buried(node: Worker, user: str) -> None:
    """At once; what else the delivery says takes effect."""
    body = json.dumps([json.loads(joined("ann")), json.loads(joined(user))]).encode()
    await put(node, body)
    await node.worker.step()

    assert ["user id not acceptable"] == await reasons(node)
    assert ("ann",) == await node.users("c")


async def test_a_body_that_cannot_be_read_is_buried(node: Worker) -> None:
    """It was accepted by another version of the server, or was damaged in the store."""
    await put(node, b"{", b"")
    await node.worker.step()

    assert ["unreadable: not JSON"] * 2 == await reasons(node)


async def test_a_poisonous_delivery_harms_no_other(
    node: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that makes the change of its channel fail is given up; the others are applied."""

    def fails(channel: Any, reports: Any, now: int) -> Any:
        if any(getattr(report.event, "user_id", "") == "poison" for report in reports):
            raise ZeroDivisionError
        return apply_webhooks(channel, reports, now)

    monkeypatch.setattr(inbox_worker, "apply_webhooks", fails)
    await put(node, joined("ann"), joined("poison"), joined("bob"))
    for _ in range(ATTEMPTS):
        await node.worker.step()

    assert ["failed: ZeroDivisionError"] == await reasons(node)
    assert {"ann", "bob"} == set(await node.users("c"))


async def test_a_damaged_channel_stops_nobody(node: Worker) -> None:
    """Its deliveries become dead letters; other channels go on."""
    await node.open("d", "t")
    await node.io.execute("HSET", channel_key("c"), "d", "damaged")
    await put(node, joined("ann"), joined("bob", "t"))
    for _ in range(ATTEMPTS):
        await node.worker.step()

    assert ["failed: ChannelDamaged"] == await reasons(node)
    assert ("bob",) == await node.users("d")


async def test_trouble_of_the_store_is_held_against_nobody(
    node: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it happens, the delivery waits, and takes effect when it is over."""

    async def away(*arguments: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as broken:
        broken.setattr(node.writer, "change", away)
        await put(node, joined("ann"))
        for _ in range(2 * ATTEMPTS):
            with pytest.raises(StoreUnavailable):
                await node.worker.step()
    assert ([], 1) == (await reasons(node), await node.inbox.waiting())
    await node.worker.step()

    assert ("ann",) == await node.users("c")


async def test_strangers_are_left_out(node: Worker) -> None:
    """A peer that we did not enrol, such as a recorder, is nobody."""
    await put(node, event("cloudflare", "joined", "s", "x", "p").replace(b'"x"', b'""'))
    await node.worker.step()

    assert ((), 0, []) == (
        await node.users("c"),
        await node.inbox.waiting(),
        await reasons(node),
    )


async def test_contradictions_ask_for_a_look(node: Worker) -> None:
    """Somebody was seen after the end: the provider is to be asked who is there."""
    asked: list[str] = []
    node.worker.on_contradiction(asked.append)
    await put(node, joined("ann"), event("rtk", "ended", "s", at=NOW - 20))
    await node.worker.step()

    assert (["c"], ("ann",)) == (asked, await node.users("c"))


async def test_a_recording_is_told_once_and_its_failure_noted(node: Worker) -> None:
    """The second webhook about a recording refreshes its address, and tells nobody."""
    told: list[str] = []
    node.channels.on_news(lambda news: told.extend(e["type"] for e in news.events))
    for url in ("https://a/1", "https://a/2"):
        await put(node, spec("recording.ready", recordingId="r", url=url))
        await node.worker.step()
    await put(node, joined("ann"))
    await node.worker.step()
    await until(lambda: "voice_state_update" in told)

    assert 1 == told.count("recording_ready")
    assert ["https://a/2"] == [r.url for r in await node.recordings.of_channel("c")]


async def test_an_address_that_was_kept_before_is_not_shown(node: Worker) -> None:
    """What an older release kept, and is no address of the web, is left out."""
    for number, address in enumerate(("javascript:alert(1)", "https://a/1")):
        await node.recordings.add("c", Recorded(f"r{number}", "s", number, address))

    assert ["https://a/1"] == [r.url for r in await node.recordings.of_channel("c")]


async def test_recordings_are_bounded_and_expire(node: Worker) -> None:
    """The oldest make room, and all of them go in the end."""
    for number in range(MOST + 5):
        assert await node.recordings.add("c", Recorded(f"r{number}", "s", number))
    kept = await node.recordings.of_channel("c")

    assert [f"r{number}" for number in range(MOST + 4, 4, -1)] == [r.recording_id for r in kept]
    for key in keys_of("c"):
        assert 0 < await node.io.execute("PTTL", key) <= 3_600_000


async def test_it_wakes_when_something_arrives(node: Worker) -> None:
    """It does not wait for the next look, on another node either."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.worker.run)
        for user in ("ann", "bob", "eve"):
            await put(node, joined(user))
            with trio.fail_after(20):
                while user not in await node.users("c"):  # noqa: ASYNC110 - in Redis
                    await trio.sleep(0.005)
        nursery.cancel_scope.cancel()

    assert node.effects.seen_waiting


async def test_who_speaks_is_told_in_the_order_of_time(
    node: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is older than the last word about the same user is dropped; few users are remembered."""
    monkeypatch.setattr(inbox_worker, "KNOWN_SPEAKERS", 2)
    heard: list[tuple[str, bool]] = []
    node.worker.on_speaking(lambda channel_id, user, speaks: heard.append((user, speaks)))
    for user, speaks, ago in [
        ("ann", True, 3.0),
        ("ann", False, 1.0),
        ("ann", True, 2.0),
        ("bob", True, 2.0),
        ("ann", True, 1.0),
        ("cid", True, 2.0),
        ("bob", False, 3.0),
        ("cid", False, 3.0),
    ]:
        told = {"participantId": user, "isSpeaking": speaks, "timestamp": NOW - ago}
        await put(node, spec("participant.speaking", **told))
        await node.worker.step()

    assert [
        ("ann", True),
        ("ann", False),
        ("bob", True),
        ("ann", True),
        ("cid", True),
        ("bob", False),
    ] == heard
    assert 2 == len(node.worker._spoke_at)


async def test_the_start_of_a_session_is_logged(node: Worker) -> None:
    """It changes nothing of a call that is open; the log says when and where it was."""
    await put(node, spec("session.started", timestamp=NOW - 2))
    with capture_logs() as lines:
        await node.worker.step()

    (line,) = [one for one in lines if one["event"] == "voice_session_started"]
    assert ("info", "c", "s") == (line["log_level"], line["channel_id"], line["session_id"])
    assert round((NOW - 2) * 1000) == line["at"]
