"""How calls are opened, as it is asked for and shown over HTTP: `createSession` of the documents.

It names `recordingEnabled`, `transcriptionEnabled` and `features`; `recording` and `transcription`
are shorter names of the first two. What is said twice must be said alike, and what the provider
does not offer is refused: nobody is to believe that something happens which does not.
"""

from collections.abc import Collection
from typing import Annotated

import msgspec
from msgspec import Meta

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.voice.provider.features import Feature, require_offered
from syncbridge.voice.records import ChannelConfig

OWN = (Feature.RECORDING, Feature.TRANSCRIPTION)
"""Features that a `ChannelConfig` has fields for."""
Features = Annotated[
    dict[str, bool], Meta(max_length=16, description="By name: " + ", ".join(Feature))
]


class ConfigBody(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """How a call is opened; what is left out is as it is configured, or by default."""

    max_participants: int | None = None
    recording_enabled: bool | None = None
    transcription_enabled: bool | None = None
    recording: bool | None = None
    transcription: bool | None = None
    features: Features = {}


class ConfigAnswer(msgspec.Struct, rename="camel"):
    """How a call is opened."""

    max_participants: int
    recording_enabled: bool
    transcription_enabled: bool
    features: dict[str, bool]


class ChannelConfigAnswer(msgspec.Struct, rename="camel"):
    """How the sessions of a channel are opened.

    `standing`: it was configured; else it is as by default. `in_use`: how the session that is open
    was; null: none is.
    """

    channel_id: str
    standing: bool
    config: ConfigAnswer
    in_use: ConfigAnswer | None


def chosen_config(
    body: ConfigBody | None, base: ChannelConfig, most: int, offered: Collection[str]
) -> ChannelConfig:
    """What a body asks for, and for the rest `base`.

    Args:
        most: participants, at most. offered: features that the provider can switch.

    Raises:
        SyncBridgeError: INVALID_FIELD.
    """
    if body is None:
        return base
    wanted = body.max_participants
    if wanted is not None and not 1 <= wanted <= most:
        raise _invalid("maxParticipants", f"1 to {most} are expected")
    own = {name: _told(body, name) for name in OWN}
    asked = {name.value: on for name, on in own.items() if on is not None}
    require_offered(body.features | asked, offered, "config.features")
    more = {name: on for name, on in body.features.items() if name not in OWN}
    return ChannelConfig(
        base.max_participants if wanted is None else wanted,
        asked.get(Feature.RECORDING, base.recording),
        asked.get(Feature.TRANSCRIPTION, base.transcription),
        base.features | more,
    )


def shown_config(config: ChannelConfig) -> ConfigAnswer:
    """A configuration as it is shown; `features` has all that were asked for."""
    own = {"recording": config.recording, "transcription": config.transcription}
    return ConfigAnswer(
        config.max_participants, config.recording, config.transcription, own | config.features
    )


def _told(body: ConfigBody, feature: Feature) -> bool | None:
    """What a body says of a feature that has several names."""
    short, long = feature.value, f"{feature.value}_enabled"
    told = {getattr(body, short), getattr(body, long), body.features.get(short)} - {None}
    if len(told) > 1:
        raise _invalid(f"features.{short}", f"it conflicts with {short} or {short}Enabled")
    return bool(told.pop()) if told else None


def _invalid(name: str, detail: str) -> SyncBridgeError:
    field = f"config.{name}"
    return SyncBridgeError(ErrorCode.INVALID_FIELD, f"{field}: {detail}", field=field)
