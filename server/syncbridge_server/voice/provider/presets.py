"""Presets of RealTimeKit: named sets of a participant's permissions.

A token has the permissions of one of the application's presets, so there is a preset for each set
of permissions: `voice_p1s0v0r0` for publish, screen, video and record, with the suffix `t1` for
transcribed calls. A missing preset is created when it is first needed. All other permissions are
denied: chat, polls, plugins and control over other participants. Presets have no bit rates.
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
"""Design of the provider's own user interface, which a preset must include."""
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
    """The permissions of a preset. `transcribed`: the call is transcribed."""

    permissions: Permissions
    transcribed: bool = False


def preset_name(wanted: PresetRequest) -> str:
    """The name of the preset for a set of permissions."""
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
    """The body that creates a preset. Stream counts start at 1; permissions can deny streams."""
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
    """Whether a request was refused because its preset does not exist.

    The status and the form of that error are not documented.
    """
    told = (MISSING in words.lower() for words in _messages(answer.body))
    return answer.status in (400, 404, 422) and any(told)


def _messages(body: dict[str, Any]) -> list[str]:
    """The texts of an error: `errors[].message`, `error.message`, `error` or `message`."""
    several = body.get("errors")
    parts = [*(several if isinstance(several, list) else ()), body.get("error"), body]
    found = [part.get("message") if isinstance(part, dict) else part for part in parts]
    return [words for words in found if isinstance(words, str)]


def _may_produce(allowed: bool) -> dict[str, str]:
    return {"can_produce": "ALLOWED" if allowed else "NOT_ALLOWED"}
