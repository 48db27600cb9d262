"""What a call can have beside sound, by the names that the specification gives it.

A provider says which of them it can switch (`Capabilities.features`); others are refused, so that
nobody takes for recorded what is not.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from syncbridge.errors import ErrorCode, SyncBridgeError


class Feature(StrEnum):
    """One of them. `noiseSupression` is spelt as the specification has it."""

    RECORDING = "recording"
    TRANSCRIPTION = "transcription"
    NOISE_SUPPRESSION = "noiseSupression"
    ECHO_CANCELLATION = "echoCancellation"
    GAIN_CONTROL = "automaticGainControl"
    AI_VOICE = "aiVoice"


def require_offered(asked: Mapping[str, bool], offered: Collection[str], where: str) -> None:
    """Raise INVALID_FIELD for a feature that is asked for, and that there is not.

    Args:
        asked: what is to be on or off. offered: what the provider can switch.
        where: names the field that asks for it.
    """
    for name, on in asked.items():
        switchable = name in offered
        never_on = name in (Feature.RECORDING, Feature.TRANSCRIPTION) and not on
        if not switchable and not never_on:
            field = f"{where}.{name}"
            known = ", ".join(sorted(offered)) or "none"
            raise SyncBridgeError(
                ErrorCode.INVALID_FIELD,
                f"{field}: the voice provider does not offer it; it offers {known}",
                field=field,
            )
