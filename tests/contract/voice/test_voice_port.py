"""The port to a voice provider, for each of ours: what every one of them promises.

The stand-in speaks for the specification and for RealTimeKit; LiveKit is the real server, with real
clients. Where providers differ, the test asks their capabilities and not their name.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import pytest
import trio

from support.voice import sim_kit
from support.voice.livekit_kit import Clients, adapter
from support.voice.livekit_server import LiveKitServer
from support.voice.sim_kit import GUARDED, KINDS, Rig
from syncbridge.voice.provider import errors
from syncbridge.voice.provider.capabilities import ConnectionIdentity, EmptyList, RegisteredBy
from syncbridge.voice.provider.events import UnreadableWebhook
from syncbridge.voice.provider.records import (
    CannotVerify,
    Permissions,
    RefusalReason,
    SessionRequest,
    SessionState,
    TokenHolder,
    VerifyFailure,
    WebhookRefused,
)
from syncbridge_server.ports.provider import VoiceProvider

LIVEKIT = "livekit"
LIVE = "livekit-live"
"""LiveKit that asks its nodes who is in a room, and makes no room for a token."""
REQUEST = SessionRequest("lounge", "waddle")
NOWHERE = "http://127.0.0.1:1"
pytestmark = pytest.mark.parametrize("kind", [*KINDS, GUARDED, LIVEKIT, LIVE])


class Stage(Protocol):
    """A provider, and people who use it."""

    provider: VoiceProvider

    async def join(self, session: str, user: str, device: str = "phone") -> None:
        """A user's device gets a token and is in the media."""

    async def leave(self, session: str, user: str, device: str = "phone") -> None:
        """It says goodbye."""

    def other(self, **changes: str) -> AbstractAsyncContextManager[VoiceProvider]:
        """An adapter with another `key`, or another `url`."""


class SimStage:
    """The stand-in."""

    def __init__(self, rig: Rig, kind: str) -> None:
        self.provider = rig.provider(kind)
        self._rig, self._kind = rig, kind

    async def join(self, session: str, user: str, device: str = "phone") -> None:
        await self.provider.issue_token(session, TokenHolder(user), Permissions())
        await self._rig.move(session, user)

    async def leave(self, session: str, user: str, device: str = "phone") -> None:
        await self._rig.move(session, user, "leave")

    @asynccontextmanager
    async def other(self, key: str = sim_kit.KEY, url: str = "") -> AsyncIterator[VoiceProvider]:
        rig = Rig(self._rig.sim, url or self._rig.url, self._rig.client)
        yield rig.provider(self._kind, key)


class LiveKitStage:
    """The real server, and one process of clients."""

    def __init__(self, server: LiveKitServer, provider: VoiceProvider, clients: Clients) -> None:
        self.provider = provider
        self._server, self._clients = server, clients

    async def join(self, session: str, user: str, device: str = "phone") -> None:
        who = TokenHolder(user, device_id=device)
        issued = await self.provider.issue_token(session, who, Permissions())
        name = f"{session}/{user}/{device}"
        url = self._server.url.replace("http", "ws")
        line = {"do": "join", "as": name, "url": url, "token": issued.token, "speak": True}
        await self._clients.say(**line)
        assert "joined" == (await self._clients.until(name, "joined", "failed"))["event"]
        await until_listed(self.provider, session, user)

    async def leave(self, session: str, user: str, device: str = "phone") -> None:
        name = f"{session}/{user}/{device}"
        await self._clients.say(do="leave", **{"as": name})
        await self._clients.until(name, "left")

    @asynccontextmanager
    async def other(self, **changes: str) -> AsyncIterator[VoiceProvider]:
        async with adapter(self._server, **changes) as provider:  # type: ignore[arg-type]
            yield provider


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, LiveKitServer]]:
    """LiveKit in both ways to list, started when it is needed."""
    started: dict[str, LiveKitServer] = {}
    yield started
    for server in started.values():
        server.__exit__()


@asynccontextmanager
async def stage(kind: str, servers: dict[str, LiveKitServer]) -> AsyncIterator[Stage]:
    if kind not in (LIVEKIT, LIVE):
        async with sim_kit.rig() as rig:
            yield SimStage(rig, kind)
        return
    if kind not in servers:
        server = LiveKitServer(live=kind == LIVE, auto_create=kind != LIVE)
        await trio.to_thread.run_sync(server.start)
        servers[kind] = server
    clients = Clients()
    async with trio.open_nursery() as nursery, adapter(servers[kind]) as provider:
        await nursery.start(clients.run)
        yield LiveKitStage(servers[kind], provider, clients)
        nursery.cancel_scope.cancel()


async def until_listed(provider: VoiceProvider, session: str, user: str) -> None:
    with trio.fail_after(20):
        while user not in await listed(provider, session):  # noqa: ASYNC110 - only asking tells
            await trio.sleep(0.02)


async def until_left(provider: VoiceProvider, session: str, *stay: str) -> None:
    with trio.fail_after(20):
        while await listed(provider, session) != list(stay):  # noqa: ASYNC110 - only asking tells
            await trio.sleep(0.02)


async def listed(provider: VoiceProvider, session: str) -> list[str]:
    """Users by their connections; none when that cannot be said."""
    state = await provider.fetch_state(session)
    return sorted(p.user_id for p in state.participants) if isinstance(state, SessionState) else []


async def opened(where: Stage, key: str) -> str:
    return (await where.provider.create_session(REQUEST, key)).id


Servers = dict[str, LiveKitServer]


async def test_one_key_is_one_call(kind: str, servers: Servers) -> None:
    """Also for many who ask at the same time, where the provider knows keys."""
    async with stage(kind, servers) as where:
        ids = [await opened(where, key) for key in ("a", "a", "b")]

        assert (True, False) == (ids[0] == ids[1], ids[0] == ids[2])


async def test_a_token_has_an_end_and_a_holder(kind: str, servers: Servers) -> None:
    """The same holder the second time; another device may be another holder."""
    async with stage(kind, servers) as where:
        session = await opened(where, "tokens")
        people = [TokenHolder("ann", "Ann", device) for device in ("a", "a", "b")]
        issued = [await where.provider.issue_token(session, p, Permissions()) for p in people]
        ids = [one.participant_id for one in issued]
        apart = where.provider.capabilities.identity is ConnectionIdentity.DEVICE

        assert all(one.token and one.expires_at > 1_700_000_000 for one in issued)
        assert (ids[0] == ids[1], ids[0] != ids[2]) == (True, apart)
        assert issued[0].token not in repr(issued[0])


async def test_a_state_is_who_is_there(kind: str, servers: Servers) -> None:
    """With connections and devices, as far as they are told; who has left is not in it."""
    async with stage(kind, servers) as where:
        session, offers = await opened(where, "state"), where.provider.capabilities
        await where.join(session, "ann")
        await where.join(session, "bob")
        await where.leave(session, "bob")
        await until_left(where.provider, session, "ann")
        state = await where.provider.fetch_state(session)

        assert isinstance(state, SessionState)
        (ann,) = state.participants
        assert (offers.connection_ids, offers.identity is ConnectionIdentity.DEVICE) == (
            bool(ann.peer_id),
            ann.device_id == "phone",
        )
        assert offers.mute_seen is (ann.muted is not None)
        assert bool(state.life) is (offers.second_look_s > 0)


async def test_a_call_in_which_nobody_is(kind: str, servers: Servers) -> None:
    """Its list is empty, which is no statement; only where it is a negative it names its life."""
    async with stage(kind, servers) as where:
        session, offers = await opened(where, "nobody"), where.provider.capabilities
        state = await where.provider.fetch_state(session)

        assert isinstance(state, CannotVerify)
        assert VerifyFailure.EMPTY is state.doubt
        assert not state.life or offers.empty_list is EmptyList.NEGATIVE


async def test_the_list_has_calls_with_people(kind: str, servers: Servers) -> None:
    """Following the cursor. One in which nobody is may be left out."""
    async with stage(kind, servers) as where:
        session = await opened(where, "listed")
        await where.join(session, "ann")
        found: dict[str, int] = {}
        with trio.fail_after(20):
            while not found.get(session):
                page = await where.provider.list_active()
                if not isinstance(page, CannotVerify):
                    found = {one.session_id: one.participants for one in page.sessions}
                await trio.sleep(0.05)

        assert 1 == found[session]


async def test_a_call_that_was_ended(kind: str, servers: Servers) -> None:
    """Nobody is in it. To end it again, or what never was, is no error."""
    async with stage(kind, servers) as where:
        session = await opened(where, "ended")
        await where.join(session, "ann")
        for _ in "12":
            await where.provider.end_session(session)
        await where.provider.end_session("never-was")

        assert [] == await listed(where.provider, session)


async def test_whoever_is_kicked_was_there(kind: str, servers: Servers) -> None:
    """With all devices; the answer says whether there was anybody."""
    async with stage(kind, servers) as where:
        session = await opened(where, "kicked")
        await where.join(session, "ann")
        await where.join(session, "ann", "laptop")
        await where.join(session, "bob")
        kicked = [await where.provider.kick(session, user) for user in ("ann", "zoe")]
        await until_left(where.provider, session, "bob")

        assert [True, False] == kicked


async def test_nobody_is_kicked_out_of_what_is_not_there(kind: str, servers: Servers) -> None:
    """It is not an error."""
    async with stage(kind, servers) as where:
        assert not await where.provider.kick("never-was", "ann")


async def test_what_is_not_offered_is_refused(kind: str, servers: Servers) -> None:
    """And what is offered says whether there was somebody; nobody else is touched."""
    async with stage(kind, servers) as where:
        session, offers = await opened(where, "offers"), where.provider.capabilities
        await where.join(session, "ann")
        listen = Permissions(can_speak=False)
        asked: dict[str, tuple[bool, Callable[[str], Awaitable[bool]]]] = {
            "mute": (offers.server_mute, lambda user: where.provider.mute(session, user)),
            "permissions": (
                offers.permissions_live,
                lambda user: where.provider.set_permissions(session, user, listen),
            ),
        }
        for offered, ask in asked.values():
            if offered:
                assert [True, False] == [await ask(user) for user in ("ann", "zoe")]
                continue
            with pytest.raises(errors.Unsupported):
                await ask("ann")


async def test_who_registers_webhooks_is_told(kind: str, servers: Servers) -> None:
    """By the API, or not at all."""
    async with stage(kind, servers) as where:
        by = where.provider.capabilities.webhooks_registered_by
        if by is RegisteredBy.CONFIGURATION:
            with pytest.raises(errors.Unsupported):
                await where.provider.register_webhook("http://127.0.0.1:9/hook")
        else:
            made = [await where.provider.register_webhook("http://127.0.0.1:9/x") for _ in "12"]
            assert made[0] == made[1] or by is RegisteredBy.SESSION


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"event":"x","type":1}', b"\xff"])
async def test_a_webhook_that_nobody_signed(kind: str, servers: Servers, body: bytes) -> None:
    """Is refused, and its body has an answer all the same."""
    async with stage(kind, servers) as where:
        verdict = await where.provider.verify_webhook({}, body, 1_700_000_000.0)

        assert WebhookRefused(RefusalReason.MISSING) == verdict
        assert isinstance(where.provider.parse_webhook(body), list | UnreadableWebhook)


async def test_a_provider_that_is_not_there(kind: str, servers: Servers) -> None:
    """Nothing was done, and that is known; reads are a value."""
    async with stage(kind, servers) as where, where.other(url=NOWHERE) as gone:
        with pytest.raises(errors.NetworkFailed) as failed:
            await gone.create_session(REQUEST, "a")
        answers = [await gone.fetch_state("x"), await gone.list_active()]

        assert not failed.value.outcome_unknown
        assert [VerifyFailure.UNREACHABLE] * 2 == [getattr(one, "doubt", None) for one in answers]


async def test_a_key_that_is_wrong(kind: str, servers: Servers) -> None:
    """The provider refuses it: one error, and no statement."""
    async with stage(kind, servers) as where, where.other(key="wrong") as refused:
        with pytest.raises(errors.PermissionDenied):
            await refused.create_session(REQUEST, "a")
        answers = [await refused.fetch_state("x"), await refused.list_active()]

        assert [VerifyFailure.REFUSED] * 2 == [getattr(one, "doubt", None) for one in answers]
