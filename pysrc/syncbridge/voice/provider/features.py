"""Optional features of a call, by the specification's names.

A provider lists the features that it can switch (`Capabilities.features`). Requests for others are
refused, so that no user assumes, for example, a recording that does not exist.
"""

from collections.abc import Collection, Mapping
from enum import StrEnum

from syncbridge.errors import ErrorCode, SyncBridgeError


class Feature(StrEnum):
    """A feature. `noiseSupression` is spelled as in the specification."""

    RECORDING = "recording"
    TRANSCRIPTION = "transcription"
    NOISE_SUPPRESSION = "noiseSupression"
    ECHO_CANCELLATION = "echoCancellation"
    GAIN_CONTROL = "automaticGainControl"
    AI_VOICE = "aiVoice"


def require_offered(asked: Mapping[str, bool], offered: Collection[str], where: str) -> None:
    """Raise INVALID_FIELD for a requested feature that is not offered.

    Args:
        asked: features to switch on or off. offered: features that the provider can switch.
        where: name of the field with the request.
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
