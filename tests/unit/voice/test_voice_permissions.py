"""What a grant's words become: permissions, a token's claims, a request's body, a preset."""

import json
from typing import Any

import httpx
import jwt
import pytest

from syncbridge.errors import SyncBridgeError
from syncbridge.identity import Identity, Role, VoiceGrant
from syncbridge.voice.grants import permissions_of, require
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.records import Permissions, TokenHolder
from syncbridge_server.voice.provider.calling import ProviderCalls
from syncbridge_server.voice.provider.presets import (
    PresetRequest,
    is_missing,
    preset_body,
    preset_name,
)
from syncbridge_server.voice.provider.rtk import RtkProvider

SECRET = "a-secret-of-32-bytes-or-more-0000"
NOW = 1_800_000_000.0
ANN = TokenHolder("ann", "Ann")
WORDS: dict[tuple[str, ...], tuple[bool, bool, bool, bool]] = {
    (): (False, False, False, False),
    ("listen",): (False, False, False, False),
    ("speak",): (True, False, False, False),
    ("record",): (False, True, False, False),
    ("stream",): (False, False, True, False),
    ("video",): (False, False, False, True),
    ("speak", "stream"): (True, False, True, False),
    ("*",): (True, True, True, True),
}
"""Words of a grant -> who has them may speak, record, stream, use video."""
GRANTS: list[tuple[list[tuple[str, str, str]], tuple[bool, bool] | None]] = [
    ([], None),
    ([("w", "c", "speak")], (True, False)),
    ([("w", "c", "speak"), ("w", "c", "record")], (True, True)),
    ([("*", "c", "speak"), ("w", "*", "record")], (True, True)),
    ([("*", "*", "*")], (True, True)),
    ([("w", "other", "speak")], None),
    ([("other", "c", "speak")], None),
    ([("w", "c", "record"), ("w", "other", "speak")], (False, True)),
]
"""Grants of one word -> whether their holder may speak, and record, in channel c of waddle w."""


def holder(*grants: VoiceGrant, role: Role = Role.USER) -> Identity:
    return Identity("ann", role, "j", 0.0, 1.0, voice=grants)


def allowed(words: tuple[str, ...]) -> Permissions:
    permissions = permissions_of(holder(VoiceGrant("w", "c", words)), "w", "c")
    assert permissions is not None
    return permissions


def rights(words: tuple[str, ...]) -> dict[str, Any]:
    """The permissions of a token, as the specification writes them."""
    speak, record, stream, video = WORDS[words]
    return {
        "canPublish": speak,
        "canSubscribe": True,
        "canRecord": record,
        "canScreenShare": stream,
        "maxVideoBitrate": 1_500_000 if video else 0,
        "maxAudioBitrate": 96_000,
    }


def provider(asked: list[Any], secret: str = "") -> RtkProvider:
    """An adapter whose provider notes what it is asked for."""

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(201, json={"token": "t"})

    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    calls = ProviderCalls(client, "http://provider", "k", RequestBudget(1000, 1000))
    return RtkProvider(calls, secret, clock=lambda: NOW, token_seconds=600)


@pytest.mark.parametrize("words", WORDS)
def test_words_are_permissions(words: tuple[str, ...]) -> None:
    """Each word allows one thing, `*` all of them; whoever has a grant at all may listen."""
    may = allowed(words)

    assert WORDS[words] == (may.can_speak, may.can_record, may.can_stream, may.can_use_video)


@pytest.mark.parametrize(("grants", "may"), GRANTS)
def test_grants_count_together_where_they_fit(
    grants: list[tuple[str, str, str]], may: tuple[bool, bool] | None
) -> None:
    """None without one that fits; the words of those that fit are added up."""
    who = holder(*(VoiceGrant(waddle, channel, (word,)) for waddle, channel, word in grants))
    found = permissions_of(who, "w", "c")

    assert may == (found and (found.can_speak, found.can_record))
    if may is None:
        with pytest.raises(SyncBridgeError):
            require(who, "w", "c")


@pytest.mark.parametrize("role", [Role.SERVICE, Role.ADMIN])
def test_services_and_admins_need_no_grant(role: Role) -> None:
    """They may do everything, everywhere."""
    assert permissions_of(holder(role=role), "w", "c") == allowed(("*",))


@pytest.mark.parametrize("words", WORDS)
async def test_words_are_claims_of_a_token_that_we_sign(words: tuple[str, ...]) -> None:
    """Nobody is asked; the token has the rights, and is over when it should be."""
    asked: list[Any] = []
    issued = await provider(asked, SECRET).issue_token("room", ANN, allowed(words))
    claims = jwt.decode(issued.token, SECRET, algorithms=["HS256"])

    assert [] == asked
    assert claims == {
        "sub": "ann",
        "room": "room",
        "permissions": {**rights(words), "maxBitrate": 128_000},
        "exp": NOW + 600,
    }


@pytest.mark.parametrize("words", WORDS)
async def test_words_are_in_the_request_for_a_token(words: tuple[str, ...]) -> None:
    """The provider is told the rights, whose token it is, since when, and for how long."""
    asked: list[Any] = []
    await provider(asked).issue_token("room", ANN, allowed(words))

    assert asked == [
        {
            "sessionId": "room",
            "participantId": "ann",
            "permissions": rights(words),
            "metadata": {"userId": "ann", "username": "Ann", "joinedAt": NOW * 1000},
            "expiresIn": 600,
        }
    ]


@pytest.mark.parametrize("words", WORDS)
def test_words_are_a_preset(words: tuple[str, ...]) -> None:
    """Its name says the rights, and its body gives them: to send, and to record."""
    speak, record, stream, video = WORDS[words]
    preset = preset_body(PresetRequest(allowed(words)))
    media = preset["permissions"]["media"]
    sends = [media[m]["can_produce"] == "ALLOWED" for m in ("audio", "screenshare", "video")]

    assert f"voice_p{speak:d}s{stream:d}v{video:d}r{record:d}" == preset["name"]
    assert preset["name"] == preset_name(PresetRequest(allowed(words)))
    assert ([speak, stream, video], record) == (sends, preset["permissions"]["can_record"])


WHY = "No preset found with name voice_p1s0v0r0"


@pytest.mark.parametrize("status", [400, 404, 422, 409, 500])
@pytest.mark.parametrize(
    ("body", "missing"),
    [
        ({"error": {"code": 400, "message": WHY}}, True),
        ({"error": WHY}, True),
        ({"errors": [{"code": 1}, {"code": 2, "message": WHY}]}, True),
        ({"errors": [], "error": None, "message": WHY}, True),
        ({"message": "no such meeting"}, False),
        ({"error": {"message": 5}, "errors": {"message": WHY}}, False),
        ({}, False),
    ],
)
async def test_a_preset_that_is_missing_is_known_by_its_words(
    status: int, body: dict[str, Any], missing: bool
) -> None:
    """In any of the forms of an error, with any status that a wrong name can have."""
    client = httpx.AsyncClient(
        transport=httpx.MockTransport(lambda request: httpx.Response(status, json=body))
    )
    calls = ProviderCalls(client, "http://provider", "k", RequestBudget(1000, 1000))
    answer = await calls.ask("POST", "/x", {}, accept=(status,))

    assert (missing and status in (400, 404, 422)) == is_missing(answer)
