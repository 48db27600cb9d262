"""Whatever fulfils the port to a voice provider: the same answers, with and without faults.

Both adapters, and a circuit breaker around one of them, speak real HTTP with the stand-in provider,
which knows the truth.
"""

import time
from collections.abc import Awaitable, Callable

import jwt
import pytest

from support.voice import sim_kit
from support.voice.sim_kit import GUARDED, KINDS, Rig
from syncbridge.voice.provider import errors
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.records import (
    CannotVerify,
    Permissions,
    SessionRequest,
    SessionState,
    TokenHolder,
    Vacated,
    VerifyFailure,
)
from syncbridge_server.ports.provider import VoiceProvider

REQUEST = SessionRequest("lounge", "waddle", max_participants=2)
ALICE = TokenHolder("alice", "Alice")
MEDIA = ("audio", "screenshare", "video")
pytestmark = pytest.mark.parametrize("kind", [*KINDS, GUARDED])

Act = Callable[[VoiceProvider, str], Awaitable[object]]
CHANGES: dict[str, Act] = {
    "create": lambda p, sid: p.create_session(REQUEST, "another"),
    "end": lambda p, sid: p.end_session(sid),
    "kick": lambda p, sid: p.kick(sid, "alice"),
    "record": lambda p, sid: p.start_recording(sid),
}
READS: dict[str, Act] = {
    "state": lambda p, sid: p.fetch_state(sid),
    "list": lambda p, sid: p.list_active(),
}
FAULTS = {
    "429": ({"rate_limit": 7}, errors.RateLimited, VerifyFailure.RATE_LIMITED),
    "503": ({"status": 503}, errors.ProviderUnavailable, VerifyFailure.UNREACHABLE),
    "500": ({"status": 500}, errors.ProviderUnavailable, VerifyFailure.UNREACHABLE),
    "hang": ({"hang": True}, errors.NetworkFailed, VerifyFailure.UNREACHABLE),
    "slow": ({"latency_ms": 30_000}, errors.NetworkFailed, VerifyFailure.UNREACHABLE),
}


async def opened(rig: Rig, kind: str, *users: str) -> str:
    """A session with some users in it."""
    session = await rig.provider(kind).create_session(REQUEST, "call-1")
    for user in users:
        await rig.move(session.id, user)
    return session.id


async def test_create_answers_the_same_session_for_the_same_key(kind: str) -> None:
    """One key makes one session, another key another one."""
    async with sim_kit.rig() as rig:
        provider = rig.provider(kind)
        ids = [(await provider.create_session(REQUEST, key)).id for key in ("a", "a", "b")]

        assert (ids[0] == ids[1], ids[0] == ids[2]) == (True, False)
        assert 2 == (await rig.truth())["created"]


async def test_a_lost_answer_to_create_makes_no_second_session(kind: str) -> None:
    """Create times out and was done: the outcome is said to be unknown; the key finds it again."""
    async with sim_kit.rig() as rig:
        await rig.faults(create_lost=True)
        with pytest.raises(errors.NetworkFailed) as failed:
            await rig.provider(kind, deadline=0.3).create_session(REQUEST, "a")
        await rig.faults()
        session = await rig.provider(kind).create_session(REQUEST, "a")

        assert failed.value.outcome_unknown
        assert [session.id] == list((await rig.truth())["rooms"])


async def test_tokens_are_issued_and_issued_again(kind: str) -> None:
    """A user gets a token with an end in the future, also the second time."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind)
        provider = rig.provider(kind)
        tokens = [await provider.issue_token(session_id, ALICE, Permissions()) for _ in "12"]

        assert all(token.token and token.expires_at > 1_700_000_000 for token in tokens)
        assert tokens[0].participant_id == tokens[1].participant_id
        assert tokens[0].token not in repr(tokens[0])


async def rights(rig: Rig, kind: str, session_id: str, token: str, user: str) -> list[bool]:
    """Whether a token lets its holder speak, share a screen, use video, and record."""
    truth = await rig.truth()
    asked = truth["rooms"][session_id]["tokens"].get(user, {})
    if kind == "cloudflare":
        allowed = truth["presets"][asked["preset"]]
        media = [allowed["media"][name]["can_produce"] for name in MEDIA]
        return [*(may == "ALLOWED" for may in media), allowed["can_record"]]
    claims = jwt.decode(token, options={"verify_signature": False})
    allowed = claims["permissions"]
    assert "metadata" not in asked or allowed == asked["permissions"]
    may = [allowed[name] for name in ("canPublish", "canScreenShare", "canRecord")]
    return [*may[:2], allowed["maxVideoBitrate"] > 0, may[2]]


@pytest.mark.parametrize("speak", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("video", [False, True])
@pytest.mark.parametrize("record", [False, True])
async def test_a_token_has_the_rights_of_its_holder_and_no_others(
    kind: str, speak: bool, stream: bool, video: bool, record: bool
) -> None:
    """As the provider knows them: a listener's token is not a speaker's, and so on."""
    may = Permissions(speak, record, stream, video)
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind)
        provider = rig.provider(kind)
        await provider.issue_token(session_id, TokenHolder("bob"), Permissions())
        issued = await provider.issue_token(session_id, ALICE, may)

        found = await rights(rig, kind, session_id, issued.token, "alice")
        assert [speak, stream, video, record] == found


@pytest.mark.parametrize("recording", [False, True])
@pytest.mark.parametrize("transcription", [False, True])
async def test_a_session_has_the_features_that_were_asked_for(
    kind: str, recording: bool, transcription: bool
) -> None:
    """RealTimeKit is asked to record by `start_recording` only, and knows no bound and no words."""
    request = SessionRequest("lounge", "waddle", 7, recording, transcription)
    async with sim_kit.rig() as rig:
        session = await rig.provider(kind).create_session(request, "call-1")
        room = (await rig.truth())["rooms"][session.id]

        if kind == "cloudflare":
            wanted = {"record_on_start": False, "transcribe_on_end": transcription}
            assert (wanted, "call-1") == (room["features"], room["title"])
        else:
            features, metadata = room["features"], room["metadata"]
            told = (features["recording"], features["transcription"])
            assert (recording, transcription) == told
            assert ("lounge", "waddle") == (metadata["channelId"], metadata["waddleId"])
            assert 7 == room["max_participants"]


async def test_state_is_who_is_in_it(kind: str) -> None:
    """Those who joined and did not leave, and nobody else."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice", "bob")
        await rig.move(session_id, "bob", "leave")
        state = await rig.provider(kind).fetch_state(session_id)

        assert isinstance(state, SessionState)
        assert ["alice"] == [person.user_id for person in state.participants]


async def test_the_list_of_sessions_has_pages(kind: str) -> None:
    """Following the cursor gives every session once."""
    async with sim_kit.rig() as rig:
        provider = rig.provider(kind)
        made = [(await provider.create_session(REQUEST, f"c{n}")).id for n in range(5)]
        for session_id in made:
            await rig.move(session_id, "alice")
        seen, cursor = [], ""
        for _ in range(3):
            page = await provider.list_active(cursor, limit=2)
            assert not isinstance(page, CannotVerify)
            seen += [session.session_id for session in page.sessions]
            cursor = page.cursor

        assert (made, "") == (seen, cursor)


async def test_ending_ends_for_good_and_twice(kind: str) -> None:
    """After the end nobody is in it, nobody gets in, and ending it again is no error."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        provider = rig.provider(kind)
        await provider.start_recording(session_id)
        await provider.end_session(session_id)
        await provider.end_session(session_id)
        room = (await rig.truth())["rooms"][session_id]
        state = await provider.fetch_state(session_id)

        assert (True, [], "") == (room["ended"], room["participants"], room["recording"])
        assert isinstance(state, CannotVerify)
        assert VerifyFailure.NOT_FOUND is state.doubt
        if kind != "rtk-minted":
            with pytest.raises(errors.SessionNotFound):
                await provider.issue_token(session_id, ALICE, Permissions())


async def test_kick_says_whether_somebody_was_there(kind: str) -> None:
    """A user who is in it is removed; one who is not, is not an error."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice", "bob")
        kicked = [await rig.provider(kind).kick(session_id, user) for user in ("alice", "zoe")]
        room = (await rig.truth())["rooms"][session_id]

        assert ([True, False], ["bob"]) == (kicked, room["participants"])


async def test_recording_and_metrics(kind: str) -> None:
    """A recording has an id; metrics are figures, or are said not to be offered."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        provider = rig.provider(kind)
        recording = await provider.start_recording(session_id)
        metrics = await provider.fetch_metrics(session_id)

        assert (await rig.truth())["rooms"][session_id]["recording"] == recording.id
        if kind == "cloudflare":
            assert isinstance(metrics, CannotVerify)
            assert VerifyFailure.UNSUPPORTED is metrics.doubt
        else:
            assert not isinstance(metrics, CannotVerify)
            assert 40.0 == metrics.latency


async def test_what_is_not_offered_is_refused_and_nothing_else_is(kind: str) -> None:
    """The capabilities say it, and a request for it is an error of its own."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        provider = rig.provider(kind)
        offers = provider.capabilities
        await provider.start_recording(session_id)
        asked: dict[str, tuple[bool, Callable[[], Awaitable[object]]]] = {
            "mute": (offers.server_mute, lambda: provider.mute(session_id, "alice")),
            "permissions": (
                offers.permissions_live,
                lambda: provider.set_permissions(session_id, "alice", Permissions()),
            ),
            "stop": (offers.recording_stop, lambda: provider.stop_recording(session_id)),
        }
        done = {}
        for name, (_, ask) in asked.items():
            try:
                done[name] = await ask()
            except errors.Unsupported:
                done[name] = None

        assert {name: offered or None for name, (offered, _) in asked.items()} == done
        recording = (await rig.truth())["rooms"][session_id]["recording"]
        assert offers.recording_stop is not bool(recording)


@pytest.mark.parametrize("act", CHANGES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_change_that_fails_raises_its_error(kind: str, fault: str, act: str) -> None:
    """Each fault of the provider is its own error, with the time to come back where told."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        faults, error, _ = FAULTS[fault]
        await rig.faults(**faults)
        provider = rig.provider(kind, deadline=0.2 if error is errors.NetworkFailed else 2.0)
        with pytest.raises(error) as failed:
            await CHANGES[act](provider, session_id)

        assert (7.0 if fault == "429" else None) == failed.value.retry_after


@pytest.mark.parametrize("act", READS)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_read_that_fails_verifies_nothing(kind: str, fault: str, act: str) -> None:
    """Each fault of the provider makes a read a value that says: cannot verify."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        faults, error, doubt = FAULTS[fault]
        await rig.faults(**faults)
        provider = rig.provider(kind, deadline=0.2 if error is errors.NetworkFailed else 2.0)
        answer = await READS[act](provider, session_id)

        assert isinstance(answer, CannotVerify)
        assert doubt is answer.doubt


@pytest.mark.parametrize("act", READS)
@pytest.mark.parametrize(
    ("lists", "doubt"), [("empty", VerifyFailure.EMPTY), ("partial", VerifyFailure.PARTIAL)]
)
async def test_a_list_that_is_not_whole_verifies_nothing(
    kind: str, lists: str, doubt: VerifyFailure, act: str
) -> None:
    """An empty or a cut list with status 200 is never taken for people who left."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice", "bob")
        await rig.faults(lists=lists)
        answer = await READS[act](rig.provider(kind), session_id)

        assert isinstance(answer, CannotVerify)
        assert doubt is answer.doubt


async def test_an_unreachable_provider_is_a_network_error(kind: str) -> None:
    """Nothing listens there: nothing was done, and that is known."""
    async with sim_kit.rig() as rig:
        gone = Rig(rig.sim, "http://127.0.0.1:1", rig.client)
        with pytest.raises(errors.NetworkFailed) as failed:
            await gone.provider(kind).create_session(REQUEST, "a")
        state = await gone.provider(kind).fetch_state("x")

        assert not failed.value.outcome_unknown
        assert isinstance(state, CannotVerify)


async def test_a_wrong_key_is_permission_denied(kind: str) -> None:
    """The provider refuses our key: no error of another kind, and no statement."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        provider = rig.provider(kind, key="wrong")
        with pytest.raises(errors.PermissionDenied):
            await provider.start_recording(session_id)
        state = await provider.fetch_state(session_id)

        assert isinstance(state, CannotVerify)
        assert VerifyFailure.REFUSED is state.doubt


async def test_an_unknown_session_is_not_found(kind: str) -> None:
    """Recording or asking about what is not there."""
    async with sim_kit.rig() as rig:
        provider = rig.provider(kind)
        with pytest.raises(errors.SessionNotFound):
            await provider.start_recording("nowhere")
        state = await provider.fetch_state("no/where?x")

        assert isinstance(state, CannotVerify)
        assert VerifyFailure.NOT_FOUND is state.doubt


async def test_a_session_without_people_is_there(kind: str) -> None:
    """A room that nobody entered is empty, which says nothing; it is not one that is not there."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind)
        state = await rig.provider(kind).fetch_state(session_id)

        assert isinstance(state, CannotVerify)
        assert VerifyFailure.EMPTY is state.doubt


async def test_a_session_that_everybody_left(kind: str) -> None:
    """Empty; where the provider keeps a record, it says who was there, and since when not."""
    async with sim_kit.rig() as rig:
        session_id, provider = await opened(rig, kind, "alice"), rig.provider(kind)
        before = await provider.fetch_state(session_id)
        began = time.time()
        await rig.move(session_id, "alice", "leave")
        state = await provider.fetch_state(session_id)

        if not provider.capabilities.left_record:
            assert isinstance(state, CannotVerify)
            assert VerifyFailure.EMPTY is state.doubt
            return
        assert isinstance(before, SessionState)
        assert isinstance(state, Vacated)
        (gone,), (present,) = state.gone, before.participants
        assert ("alice", present.peer_id) == (gone.user_id, gone.peer_id)
        assert gone.left_at is not None
        assert began - 0.01 <= gone.left_at <= time.time()


@pytest.mark.parametrize("lists", ["empty", "partial"])
async def test_a_record_that_is_not_whole_is_no_proof(kind: str, lists: str) -> None:
    """The session has ended, and the lists about it are empty or cut."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice", "bob")
        for user in ("alice", "bob"):
            await rig.move(session_id, user, "leave")
        await rig.faults(lists=lists)

        assert isinstance(await rig.provider(kind).fetch_state(session_id), CannotVerify)


async def test_whoever_left_is_told_beside_who_stays(kind: str) -> None:
    """Also while the session is live, and of somebody who came again with another connection."""
    async with sim_kit.rig() as rig:
        session_id, provider = await opened(rig, kind, "alice", "bob"), rig.provider(kind)
        await rig.move(session_id, "bob", "leave")
        await rig.move(session_id, "bob")
        state = await provider.fetch_state(session_id)

        assert isinstance(state, SessionState)
        there = {one.user_id: one.peer_id for one in state.participants}
        assert {"alice", "bob"} == set(there)
        if not provider.capabilities.left_record:
            assert () == state.gone
            return
        assert ["bob"] == [one.user_id for one in state.gone]
        assert there["bob"] != state.gone[0].peer_id


async def test_nothing_is_asked_when_the_budget_is_spent(kind: str) -> None:
    """A poll leaves the reserve to others, and what has no token is refused without a request."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        provider = rig.provider(kind, budget=RequestBudget(0.001, 2))
        state = await provider.fetch_state(session_id)
        again = await provider.fetch_state(session_id)
        if kind == "cloudflare":
            assert isinstance(state, CannotVerify)
        else:
            assert isinstance(state, SessionState)
        assert isinstance(again, CannotVerify)
        assert VerifyFailure.RATE_LIMITED is again.doubt

        async def twice() -> None:
            for _ in "12":
                await provider.kick(session_id, "alice")

        with pytest.raises(errors.RateLimited) as refused:
            await twice()
        assert (refused.value.retry_after or 0) > 0
        assert [] == (await rig.truth())["rooms"][session_id]["participants"]


async def test_a_429_shuts_the_budget_for_everybody(kind: str) -> None:
    """After a 429 no call asks again before the time that the provider named."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind, "alice")
        provider = rig.provider(kind)
        await rig.faults(rate_limit=60, count=1)
        await provider.fetch_state(session_id)
        with pytest.raises(errors.RateLimited):
            await provider.kick(session_id, "alice")

        assert ["alice"] == (await rig.truth())["rooms"][session_id]["participants"]


async def test_a_full_session_is_told_where_the_provider_knows(kind: str) -> None:
    """The third user of a session for two is refused by the provider that issues the tokens."""
    async with sim_kit.rig() as rig:
        session_id = await opened(rig, kind)
        provider = rig.provider(kind)
        for user in ("a", "b"):
            await provider.issue_token(session_id, TokenHolder(user), Permissions())
        if kind in ("rtk", GUARDED):
            with pytest.raises(errors.SessionFull):
                await provider.issue_token(session_id, ALICE, Permissions())
        else:
            assert (await provider.issue_token(session_id, ALICE, Permissions())).token
