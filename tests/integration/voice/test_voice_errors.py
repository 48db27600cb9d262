"""Each error code of the provider, raised by the provider itself: what we do, what a client hears.

The rows of `syncbridge.voice.recovery`, through a whole server and real HTTP.
"""

from typing import Any

import httpx
import pytest
from starlette.responses import Response

from support.redis_servers import RedisServer
from support.voice.voice_kit import VoiceRig, voice_server
from syncbridge.voice.provider.errors import ProviderCode
from syncbridge.voice.recovery import TABLE
from syncbridge_tools.rtk_sim import spec_dialect
from syncbridge_tools.rtk_sim.handling import SimRequest
from syncbridge_tools.rtk_sim.world import WorldError

QUIET = {"voice_sync": 86_400.0, "voice_deadline": 1.0}
real_issue = spec_dialect.issue_token


class Tokens:
    """The provider's answers to requests for tokens: errors first, then as usual."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *errors: tuple[int, str]) -> None:
        self.errors = list(errors)
        self.asked = 0
        monkeypatch.setattr(spec_dialect, "issue_token", self.answer)

    def answer(self, call: SimRequest) -> Response:
        self.asked += 1
        if self.errors:
            status, code = self.errors.pop(0)
            raise WorldError(status, code, "in the provider's own words")
        return real_issue(call)


def heard(answer: httpx.Response) -> tuple[int, str, str, str]:
    """Status, our code, the provider's code, Retry-After."""
    document: dict[str, Any] = answer.json()
    assert "in the provider's own words" not in answer.text
    return (
        answer.status_code,
        document["code"],
        document.get("providerCode", ""),
        answer.headers.get("retry-after", ""),
    )


def test_every_code_has_a_row() -> None:
    """No code without a decision; who may try again is told when."""
    assert set(TABLE) == set(ProviderCode)
    assert all(row.retry_after for row in TABLE.values() if row.code.retryable)


async def test_session_not_found_is_recreated(redis_server: RedisServer) -> None:
    """The room is gone at the provider: the client gets a token for another one, at once."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        lost = await rig.join("ann", "lobby")
        await rig.sim.faults(webhooks=["lost"])
        world = rig.sim.sim.world
        world.end(world.rooms[lost], 0.0)
        answer = await rig.token("bob", "lobby")
        record = (await rig.channel("lobby")).record

        assert answer["sessionId"] != lost
        assert record.move is not None
        assert ("lost", "moving", 1) == (
            record.move.reason,
            record.move.result,
            record.move.participants,
        )


async def test_session_not_found_for_ever_is_told(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each room is lost at once: a few are tried, then the client is told to come back."""
    Tokens(monkeypatch, *[(404, "SESSION_NOT_FOUND")] * 50)
    async with voice_server(redis_server.url, **QUIET) as rig:
        status, code, _, retry = heard(await rig.ask_token("ann", "lobby"))

        assert (503, "provider_unavailable") == (status, code)
        assert int(retry) >= 1


async def test_token_expired_is_issued_again(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once by ourselves; a second time in a row the client is told."""
    tokens = Tokens(monkeypatch, (401, "TOKEN_EXPIRED"))
    async with voice_server(redis_server.url, **QUIET) as rig:
        first = await rig.ask_token("ann", "lobby")
        tokens.errors = [(401, "token_expired")] * 2
        second = await rig.ask_token("bob", "lobby")

        assert (200, 4) == (first.status_code, tokens.asked)
        assert (503, "provider_unavailable", "TOKEN_EXPIRED", "2") == heard(second)


async def test_rate_limited_waits_as_long_as_told(redis_server: RedisServer) -> None:
    """The provider's time is passed on, and nothing more is sent before it."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        await rig.sim.faults(rate_limit=17, count=1)
        answers = [heard(await rig.ask_token("ann", channel)) for channel in ("a", "b")]

        assert [(503, "provider_unavailable", "RATE_LIMITED")] * 2 == [a[:3] for a in answers]
        assert all(15 <= int(answer[3]) <= 17 for answer in answers)
        assert 0 == (await rig.sim.truth())["created"]


async def test_service_unavailable_is_told_and_running_calls_go_on(
    redis_server: RedisServer,
) -> None:
    """No room is opened, and nothing is done to those that are open."""
    async with voice_server(redis_server.url, **QUIET) as rig:
        session = await rig.join("ann", "lobby")
        await rig.sim.faults(status=502)
        answer = heard(await rig.ask_token("bob", "other"))
        channel = await rig.channel("lobby")

        assert (503, "provider_unavailable", "SERVICE_UNAVAILABLE", "5") == answer
        assert channel.call is not None
        assert ("ann",) == channel.call.users
        assert not (await rig.rooms())[session]["ended"]


async def test_tokens_that_we_sign_are_the_fallback(redis_server: RedisServer) -> None:
    """The provider's API is away; calls that are open can be joined all the same."""
    async with voice_server(redis_server.url, kind="rtk-minted", **QUIET) as rig:
        session = await rig.join("ann", "lobby")
        await rig.sim.faults(status=503)
        for number in range(8):
            await rig.ask_token("zoe", f"other{number}")
        answer = await rig.ask_token("bob", "lobby")

        assert 1.0 == _breaker(rig)
        assert (200, session) == (answer.status_code, answer.json()["sessionId"])


async def test_permission_denied_is_our_trouble(redis_server: RedisServer) -> None:
    """Our key is refused: the client is not to blame, and may try when it was mended."""
    async with voice_server(redis_server.url, **{**QUIET, "rtk_api_key": "wrong"}) as rig:
        answer = heard(await rig.ask_token("ann", "lobby"))

        assert (503, "provider_unavailable", "PERMISSION_DENIED", "60") == answer
        assert 0.0 == _breaker(rig)


async def test_session_full_is_a_conflict(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said by our own count of seats, and by the provider."""
    async with voice_server(redis_server.url, **QUIET, voice_max_participants=1) as rig:
        await rig.join("ann", "lobby")
        ours = heard(await rig.ask_token("bob", "lobby"))
    Tokens(monkeypatch, (409, "session_full"))
    async with voice_server(redis_server.url, **QUIET) as rig:
        theirs = heard(await rig.ask_token("bob", "other"))

    assert [(409, "session_full", "session_full")] * 2 == [ours[:3], theirs[:3]]
    assert all(int(answer[3]) >= 1 for answer in (ours, theirs))


async def test_network_error_is_repeated(redis_server: RedisServer) -> None:
    """No answer to the first request: it is sent again, under the same key; one room is made."""
    async with voice_server(redis_server.url, **{**QUIET, "voice_deadline": 0.4}) as rig:
        await rig.sim.faults(create_lost=True, count=1)
        answer = await rig.ask_token("ann", "lobby")
        retries = rig.node.server.registry.get_sample_value(
            "syncbridge_voice_provider_retries_total", {"call": "create_session"}
        )

        assert (200, 1) == (answer.status_code, (await rig.sim.truth())["created"])
        assert 1.0 == retries


async def test_network_error_for_ever_is_told(redis_server: RedisServer) -> None:
    """After a few attempts the client is told, in less time than it waits."""
    async with voice_server(redis_server.url, **{**QUIET, "voice_deadline": 0.3}) as rig:
        await rig.sim.faults(hang=True)
        status, code, provider_code, retry = heard(await rig.ask_token("ann", "lobby"))

        assert (503, "provider_unavailable", "network_error") == (status, code, provider_code)
        assert int(retry) >= 1


async def test_device_error_is_for_the_client(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is told what to mend; we repeat nothing."""
    tokens = Tokens(monkeypatch, (422, "device_error"))
    async with voice_server(redis_server.url, **QUIET) as rig:
        answer = heard(await rig.ask_token("ann", "lobby"))

        assert ((422, "device_error", "device_error", ""), 1) == (answer, tokens.asked)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [(418, "TEAPOT", "SERVICE_UNAVAILABLE"), (400, "weird", "invalid_request")],
)
async def test_an_unknown_code_is_the_providers_failure(
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    code: str,
    expected: str,
) -> None:
    """Whatever it says, the client hears that voice is away, and nothing of the provider's."""
    Tokens(monkeypatch, (status, code))
    async with voice_server(redis_server.url, **QUIET) as rig:
        answer = heard(await rig.ask_token("ann", "lobby"))

        assert (503, "provider_unavailable", expected) == answer[:3]


def _breaker(rig: VoiceRig) -> float | None:
    return rig.node.server.registry.get_sample_value("syncbridge_voice_breaker_open", {})
