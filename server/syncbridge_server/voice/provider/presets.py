"""Presets of RealTimeKit: what a participant may do there, under a name.

A token's permissions are those of a preset of the application, so there is one for each set of
permissions: `voice_p1s0v0r0` for publish, screen, video and record, with `t1` behind it for calls
that are transcribed. One that is not there is made
when it is first needed. Everything but these four is forbidden: chat, polls, plugins and power over
others are ours to give. Bit rates cannot be told.
"""

from typing import Any, NamedTuple

from syncbridge.voice.provider.records import Permissions
from syncbridge_server.voice.provider.calling import ProviderAnswer

MISSING = "no preset found"
_COLORS = {
    "brand": {
        "300": "#844d1c",
        "400": "#9d5b22",
        "500": "#b56927",
        "600": "#d37c30",
        "700": "#d9904f",
    },
    "background": {
        "600": "#222222",
        "700": "#1f1f1f",
        "800": "#1b1b1b",
        "900": "#181818",
        "1000": "#141414",
    },
    "danger": "#FF2D2D",
    "success": "#62A504",
    "warning": "#FFCD07",
    "text": "#EEEEEE",
    "text_on_brand": "#EEEEEE",
    "video_bg": "#191919",
}
_LOOKS = {
    "design_tokens": {
        "theme": "dark",
        "border_radius": "rounded",
        "border_width": "thin",
        "spacing_base": 4,
        "colors": _COLORS,
    }
}
"""How the provider's own user interface looks; a preset must say it."""
_FORBIDDEN = (
    "can_livestream",
    "kick_participant",
    "pin_participant",
    "can_spotlight",
    "disable_participant_audio",
    "disable_participant_video",
    "disable_participant_screensharing",
    "can_change_participant_permissions",
    "can_accept_production_requests",
    "accept_waiting_requests",
    "can_edit_display_name",
    "hidden_participant",
    "is_recorder",
)
_APART: dict[str, Any] = {
    "chat": {
        "public": {"can_send": False, "text": False, "files": False},
        "private": {"can_send": False, "can_receive": False, "text": False, "files": False},
    },
    "polls": {"can_create": False, "can_view": False, "can_vote": False},
    "plugins": {"can_start": False, "can_close": False, "can_edit_config": False, "config": {}},
    "connected_meetings": {
        "can_alter_connected_meetings": False,
        "can_switch_connected_meetings": False,
        "can_switch_to_parent_meeting": False,
    },
}


class PresetRequest(NamedTuple):
    """What a preset is to allow. `transcribed`: what its holders say is written down."""

    permissions: Permissions
    transcribed: bool = False


def preset_name(wanted: PresetRequest) -> str:
    """The preset that stands for a set of permissions."""
    permissions = wanted.permissions
    bits = (
        permissions.can_speak,
        permissions.can_stream,
        permissions.can_use_video,
        permissions.can_record,
    )
    name = "voice_" + "".join(f"{name}{bit:d}" for name, bit in zip("psvr", bits, strict=True))
    return name + "t1" if wanted.transcribed else name


def preset_body(wanted: PresetRequest) -> dict[str, Any]:
    """A preset as it is made. Streams are counted from 1: none is a matter of permission."""
    permissions = wanted.permissions
    video = permissions.can_use_video
    return {
        "name": preset_name(wanted),
        "config": {
            "view_type": "GROUP_CALL" if video else "AUDIO_ROOM",
            "max_screenshare_count": 1,
            "max_video_streams": {"desktop": 9 if video else 1, "mobile": 6 if video else 1},
            "media": {
                "video": {"quality": "hd", "frame_rate": 24},
                "screenshare": {"quality": "hd", "frame_rate": 5},
                "audio": {"enable_high_bitrate": False, "enable_stereo": False},
            },
        },
        "permissions": {
            "media": {
                "audio": _may_produce(permissions.can_speak),
                "video": _may_produce(video),
                "screenshare": _may_produce(permissions.can_stream),
            },
            "can_record": permissions.can_record,
            "transcription_enabled": wanted.transcribed,
            "show_participant_list": True,
            "waiting_room_type": "SKIP",
            "recorder_type": "NONE",
            **dict.fromkeys(_FORBIDDEN, False),
            **_APART,
        },
        "ui": _LOOKS,
    }


def is_missing(answer: ProviderAnswer) -> bool:
    """Whether a request was refused because the preset that it names is not there.

    With which status is not told anywhere, nor in which of the forms that errors have.
    """
    told = (MISSING in words.lower() for words in _messages(answer.body))
    return answer.status in (400, 404, 422) and any(told)


def _messages(body: dict[str, Any]) -> list[str]:
    """What an error says: `errors[].message`, `error.message`, `error` or `message`."""
    several = body.get("errors")
    parts = [*(several if isinstance(several, list) else ()), body.get("error"), body]
    found = [part.get("message") if isinstance(part, dict) else part for part in parts]
    return [words for words in found if isinstance(words, str)]


def _may_produce(allowed: bool) -> dict[str, str]:
    return {"can_produce": "ALLOWED" if allowed else "NOT_ALLOWED"}
