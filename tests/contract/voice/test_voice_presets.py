"""What an adapter makes at the provider besides sessions, once: presets and recordings."""

from typing import Any

import pytest
import trio

from support.voice import sim_kit
from syncbridge.voice.provider import errors
from syncbridge.voice.provider.records import Permissions, SessionRequest, TokenHolder

FORMS = ["error", "text", "errors", "message"]


async def test_a_preset_that_is_missing_is_made_once() -> None:
    """A fresh application has none: each set of permissions brings one, also for changed rights."""
    listener, speaker = Permissions(can_speak=False), Permissions(can_record=True)
    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        session = await provider.create_session(SessionRequest("c"), "key")
        for permissions in (listener, speaker, listener):
            await provider.issue_token(session.id, TokenHolder("ann"), permissions)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                who = TokenHolder(f"user-{number}")
                nursery.start_soon(provider.issue_token, session.id, who, listener)
        presets = list(rig.sim.world.presets)

    assert ["voice_p0s0v0r0", "voice_p1s0v0r1"] == presets


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [400, 404, 422])
async def test_a_missing_preset_is_known_however_it_is_told(status: int, form: str) -> None:
    """Any status and any form of an error: the preset is made, also for a change of rights."""
    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        session = await provider.create_session(SessionRequest("c"), "key")
        await rig.faults(no_preset=status, error_form=form)
        for permissions in (Permissions(), Permissions(can_record=True)):
            await provider.issue_token(session.id, TokenHolder("ann"), permissions)
        truth = await rig.truth()

    assert ["voice_p1s0v0r0", "voice_p1s0v0r1"] == list(truth["presets"])
    assert "voice_p1s0v0r1" == truth["rooms"][session.id]["tokens"]["ann"]["preset"]


async def test_a_preset_that_stays_missing_is_no_lost_session(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Presets are listed and still not found: the request is refused, and the call stays."""

    async def made(*arguments: Any) -> None:
        """The list shows it."""

    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        session = await provider.create_session(SessionRequest("c"), "key")
        monkeypatch.setattr(provider, "_make_preset", made)
        await rig.faults(no_preset=404)
        with pytest.raises(errors.InvalidRequest):
            await provider.issue_token(session.id, TokenHolder("ann"), Permissions())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("status", [400, 409, 422])
async def test_who_is_enrolled_gets_another_token(status: int, form: str) -> None:
    """Whatever status says that a user is there already, and with other rights than before."""
    listener = Permissions(can_speak=False)
    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        session = await provider.create_session(SessionRequest("c"), "key")
        await rig.faults(duplicate=status, error_form=form)
        issued = [
            await provider.issue_token(session.id, TokenHolder("ann"), permissions)
            for permissions in (Permissions(), Permissions(), listener)
        ]
        room = (await rig.truth())["rooms"][session.id]

    assert (3, 1) == (len({one.token for one in issued}), len({i.participant_id for i in issued}))
    assert (["ann"], "voice_p0s0v0r0") == (room["enrolled"], room["tokens"]["ann"]["preset"])


@pytest.mark.parametrize("status", [400, 409, 422])
async def test_a_refusal_of_somebody_who_is_not_enrolled_is_one(status: int) -> None:
    """Nobody of that name is in the list: the provider's first answer counts."""
    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        session = await provider.create_session(SessionRequest("c"), "key")
        await provider.issue_token(session.id, TokenHolder("ann"), Permissions())
        rig.sim.world.rooms[session.id].max_participants = 1
        await rig.faults(full=status)
        with pytest.raises(errors.InvalidRequest, match=str(status)):
            await provider.issue_token(session.id, TokenHolder("bob"), Permissions())


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_a_recording_that_runs_is_not_started_again(kind: str) -> None:
    """Asking twice answers the same recording."""
    async with sim_kit.rig() as rig:
        provider = rig.provider(kind)
        session_id = (await provider.create_session(SessionRequest("c"), "key")).id
        await rig.move(session_id, "alice")
        first, second = [await provider.start_recording(session_id) for _ in range(2)]

        assert first.id == second.id
