"""What an adapter makes at the provider besides sessions, once: presets and recordings."""

import pytest
import trio

import sim_kit
from syncbridge.voice.ports import Participant, Permissions, SessionRequest


async def test_a_preset_that_is_missing_is_made_once() -> None:
    """A fresh application has none: each set of permissions brings one, also for changed rights."""
    listener, speaker = Permissions(can_speak=False), Permissions(can_record=True)
    async with sim_kit.rig() as rig:
        provider = rig.provider("cloudflare")
        session = await provider.create_session(SessionRequest("c"), "key")
        for permissions in (listener, speaker, listener):
            await provider.issue_token(session.id, Participant("ann"), permissions)
        async with trio.open_nursery() as nursery:
            for number in range(5):
                who = Participant(f"user-{number}")
                nursery.start_soon(provider.issue_token, session.id, who, listener)
        presets = list(rig.sim.world.presets)

    assert ["voice_p0s0v0r0", "voice_p1s0v0r1"] == presets


@pytest.mark.parametrize("kind", ["rtk", "cloudflare"])
async def test_a_recording_that_runs_is_not_started_again(kind: str) -> None:
    """Asking twice answers the same recording."""
    async with sim_kit.rig() as rig:
        provider = rig.provider(kind)
        session_id = (await provider.create_session(SessionRequest("c"), "key")).id
        await rig.move(session_id, "alice")
        first, second = [await provider.start_recording(session_id) for _ in range(2)]

        assert first.id == second.id
