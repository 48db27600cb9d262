"""The circuit breaker and the repetition around a provider, on a clock that waits for nobody."""

from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from prometheus_client import CollectorRegistry

from syncbridge.voice.provider import errors
from syncbridge.voice.provider.breaker import Breaker, BreakerLimits, BreakerState
from syncbridge.voice.provider.capabilities import Capabilities
from syncbridge.voice.provider.records import (
    CannotVerify,
    IssuedToken,
    Permissions,
    Present,
    ProviderSession,
    SessionRequest,
    SessionState,
    TokenHolder,
    VerifyFailure,
)
from syncbridge_server.voice.figures.metrics import voice_metrics
from syncbridge_server.voice.provider.guarded import GuardedProvider, Repetition

LIMITS = BreakerLimits(threshold=3, least_s=10.0, first_s=10.0, most_s=10.0, probe_s=60.0)
STATE = SessionState("s", (Present("ann"),))
GONE = CannotVerify(VerifyFailure.UNREACHABLE, "no answer")


class Provider:
    """Answers out of a list, and counts; it takes `seconds` for each."""

    def __init__(self, *answers: Any, seconds: float = 0.0, local_tokens: bool = False) -> None:
        self.capabilities = Capabilities(token_local=local_tokens)
        self.answers = list(answers)
        self.seconds = seconds
        self.asked = 0

    async def _answer(self, usual: Any) -> Any:
        self.asked += 1
        await trio.sleep(self.seconds)
        answer = self.answers.pop(0) if self.answers else usual
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def create_session(self, request: SessionRequest, key: str) -> ProviderSession:
        return await self._answer(ProviderSession("s", key))

    async def issue_token(self, *_: Any) -> IssuedToken:
        return await self._answer(IssuedToken("t", 1.0))

    async def fetch_state(self, session_id: str) -> SessionState | CannotVerify:
        return await self._answer(STATE)

    async def start_recording(self, session_id: str) -> Any:
        return await self._answer("recording")


class Rig:
    """A guarded provider and what was counted."""

    def __init__(
        self,
        provider: Provider,
        chance: Callable[[], float] = lambda: 0.5,
    ) -> None:
        self.registry = CollectorRegistry()
        self.guarded = GuardedProvider(
            provider,  # type: ignore[arg-type]
            Breaker(LIMITS, lambda: 0.0),
            Breaker(LIMITS, lambda: 0.0),
            voice_metrics(self.registry).provider,
            repetition=Repetition(attempts=3, first_s=1.0, most_s=8.0, patience_s=1000.0),
            clock=trio.current_time,
            chance=chance,
        )

    async def create(self) -> ProviderSession:
        return await self.guarded.create_session(SessionRequest("lobby"), "key")

    def counted(self, call: str, outcome: str) -> float:
        name = "syncbridge_voice_provider_requests_total"
        return self.registry.get_sample_value(name, {"call": call, "outcome": outcome}) or 0.0


def lost() -> errors.NetworkFailed:
    return errors.NetworkFailed("no answer", outcome_unknown=True)


async def test_no_answer_is_repeated(autojump_clock: trio.testing.MockClock) -> None:
    """Twice lost, then answered; the pauses are half of one and of two seconds."""
    provider = Provider(lost(), lost())
    began = trio.current_time()
    session = await Rig(provider).create()

    assert ("s", 3, 1.5) == (session.id, provider.asked, trio.current_time() - began)


async def test_it_is_not_repeated_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    """After the last attempt the error is the caller's, and says that it may have been done."""
    provider = Provider(lost(), errors.NetworkFailed("refused"), errors.NetworkFailed("refused"))
    with pytest.raises(errors.NetworkFailed) as failed:
        await Rig(provider).create()

    assert (3, True) == (provider.asked, failed.value.outcome_unknown)


async def test_repetition_keeps_within_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    """There is no time for the pause: the caller hears the error, and not that it was too slow."""
    provider = Provider(lost(), lost())
    with pytest.raises(errors.NetworkFailed), trio.fail_after(0.4):
        await Rig(provider).create()

    assert provider.asked == 1


@pytest.mark.parametrize(
    "error",
    [
        errors.ProviderUnavailable(),
        errors.RateLimited(retry_after=3.0),
        errors.PermissionDenied(),
        errors.SessionFull(),
        errors.InvalidRequest(),
    ],
)
async def test_answers_are_not_repeated(error: errors.ProviderError) -> None:
    """Whatever the provider said, it said."""
    provider = Provider(error)
    with pytest.raises(type(error)):
        await Rig(provider).create()

    assert provider.asked == 1


async def test_a_recording_and_a_read_are_sent_once() -> None:
    """A second recording might begin; whoever polls comes again."""
    provider = Provider(lost(), GONE)
    rig = Rig(provider)
    with pytest.raises(errors.NetworkFailed):
        await rig.guarded.start_recording("s")
    state = await rig.guarded.fetch_state("s")

    assert (GONE, 2) == (state, provider.asked)


async def opened(provider: Provider, **more: Any) -> Rig:
    """A provider behind open breakers."""
    rig = Rig(provider, **more)
    provider.answers = [GONE, errors.ProviderUnavailable()] * LIMITS.threshold
    for _ in range(LIMITS.threshold):
        await rig.guarded.fetch_state("s")
        with pytest.raises(errors.ProviderUnavailable):
            await rig.create()
    provider.asked = 0
    return rig


async def test_an_open_breaker_sends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    """Changes raise, reads answer a value, both with the time to come back."""
    provider = Provider()
    rig = await opened(provider)
    with pytest.raises(errors.ProviderUnavailable) as failed:
        await rig.create()
    state = await rig.guarded.fetch_state("s")

    assert 10.0 == failed.value.retry_after
    assert isinstance(state, CannotVerify)
    assert (VerifyFailure.UNREACHABLE, 10.0, 0) == (state.doubt, state.retry_after, provider.asked)
    assert 1.0 == rig.counted("create_session", "breaker_open")


async def test_reads_that_fail_keep_nobody_from_joining() -> None:
    """What we look with is broken; rooms are opened all the same, and the other way round."""
    provider = Provider(*[GONE] * LIMITS.threshold)
    rig = Rig(provider)
    for _ in range(LIMITS.threshold):
        await rig.guarded.fetch_state("s")
    session = await rig.create()

    assert ("s", BreakerState.OPEN, BreakerState.CLOSED) == (
        session.id,
        rig.guarded.reads,
        rig.guarded.changes,
    )


async def test_half_open_is_one_probe(autojump_clock: trio.testing.MockClock) -> None:
    """Fifty ask at once when the time is over: one is sent; its success lets all others in."""
    provider = Provider(seconds=1.0)
    rig = await opened(provider)
    await trio.sleep(LIMITS.first_s)
    outcomes: list[str] = []

    async def come() -> None:
        try:
            await rig.create()
            outcomes.append("in")
        except errors.ProviderUnavailable:
            outcomes.append("away")

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(come)
    probes = provider.asked
    await rig.create()

    assert (1, 1, 49) == (probes, outcomes.count("in"), outcomes.count("away"))
    assert BreakerState.CLOSED is rig.guarded.changes


async def test_a_probe_that_fails_keeps_it_shut(autojump_clock: trio.testing.MockClock) -> None:
    """Nothing is repeated then, and the next one waits again."""
    provider = Provider()
    rig = await opened(provider)
    await trio.sleep(LIMITS.first_s)
    provider.answers = [lost()]
    with pytest.raises(errors.ProviderUnavailable) as failed:
        await rig.create()

    assert (1, True) == (provider.asked, failed.value.outcome_unknown)
    assert BreakerState.OPEN is rig.guarded.changes


async def test_a_probe_that_was_cancelled_says_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its caller went away: the next one is the probe."""
    provider = Provider(seconds=5.0)
    rig = await opened(provider)
    await trio.sleep(LIMITS.first_s)
    with trio.move_on_after(1.0):
        await rig.guarded.fetch_state("s")
    state = await rig.guarded.fetch_state("s")

    assert (STATE, BreakerState.CLOSED) == (state, rig.guarded.reads)


async def test_too_many_requests_do_not_open_it() -> None:
    """The provider is well; it, or our own budget, wants fewer requests."""
    provider = Provider(*[CannotVerify(VerifyFailure.RATE_LIMITED, retry_after=1.0)] * 20)
    rig = Rig(provider)
    for _ in range(20):
        await rig.guarded.fetch_state("s")

    assert BreakerState.CLOSED is rig.guarded.reads


async def test_tokens_that_are_signed_here_pass(autojump_clock: trio.testing.MockClock) -> None:
    """They cost no request; and that they are made says nothing about the provider."""
    provider = Provider(local_tokens=True)
    rig = await opened(provider)
    token = await rig.guarded.issue_token("s", TokenHolder("ann"), Permissions())

    assert ("t", BreakerState.OPEN) == (token.token, rig.guarded.changes)
