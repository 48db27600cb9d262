"""Which voice provider is built: ours by name, and those of other packages by entry point."""

import sys
from pathlib import Path

import httpx
import pytest

from support.server_kit import settings
from syncbridge.voice.provider.budget import RequestBudget
from syncbridge.voice.provider.capabilities import Capabilities
from syncbridge_server.settings import ConfigError
from syncbridge_server.voice.provider.cloudflare import CloudflareProvider
from syncbridge_server.voice.provider.kind import GROUP, Needs
from syncbridge_server.voice.provider.kinds import OURS, check_provider, kind_of, livekit_secrets
from syncbridge_server.voice.provider.livekit import LiveKitProvider
from syncbridge_server.voice.provider.rtk import RtkProvider

LIVEKIT = {
    "livekit_url": "http://127.0.0.1:9",
    "livekit_api_key": "key",
    "livekit_api_secret": "s" * 32,
}
DOCS = Path(__file__).parents[3] / "docs" / "voice-provider.md"
MODULE = """
from syncbridge_server.settings import ConfigError

class Kind:
    def check(self, settings):
        if settings.voice_deadline > 7:
            raise ConfigError("too slow for this provider")

    def build(self, needs):
        return ("mine", needs.settings.voice_provider)

KIND = Kind()
"""


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package that is installed beside ours, with providers `theirs`, `broken` and `rtk`."""
    (tmp_path / "their_voice.py").write_text(MODULE)
    info = tmp_path / "their_voice-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-voice\nVersion: 1.0\n")
    lines = ("theirs = their_voice:KIND", "rtk = their_voice:KIND", "broken = their_voice:NONE")
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "their_voice", raising=False)
    return "theirs"


async def needs(**values: object) -> Needs:
    return Needs(settings("unix:///nowhere", **values), httpx.AsyncClient(), RequestBudget(1, 1))


async def test_another_package_adds_a_provider(other_package: str) -> None:
    """Its check is asked at the start, and it is built from the settings."""
    given = await needs(voice_provider=other_package)
    slow = settings("unix:///nowhere", voice_provider=other_package, voice_deadline=8.0)
    check_provider(given.settings)

    assert given.settings.voice
    assert ("mine", "theirs") == kind_of(other_package).build(given)
    with pytest.raises(ConfigError, match="too slow"):
        check_provider(slow)


def test_a_name_of_ours_stays_ours(other_package: str) -> None:
    """Nobody replaces a provider of ours by installing a package."""
    assert OURS["rtk"] is kind_of("rtk")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", "there is no nobody; there are rtk, cloudflare.*broken, theirs"),
        ("broken", "broken cannot be loaded: AttributeError"),
    ],
)
def test_a_provider_that_is_not_there_is_said_at_the_start(
    other_package: str, name: str, words: str
) -> None:
    """In one line, with the names that there are."""
    with pytest.raises(ConfigError, match=words) as caught:
        check_provider(settings("unix:///nowhere", voice_provider=name))

    assert "\n" not in str(caught.value)


async def test_ours_are_built_by_their_names() -> None:
    """Each its own adapter; without a URL there is no voice, and nothing to check."""
    kinds = {"rtk": RtkProvider, "cloudflare": CloudflareProvider, "livekit": LiveKitProvider}
    for name, adapter in kinds.items():
        given = await needs(voice_provider=name, **(LIVEKIT if name == "livekit" else {}))
        check_provider(given.settings)
        assert isinstance(kind_of(name).build(given), adapter)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"livekit_url": ""}, "SYNCBRIDGE_LIVEKIT_URL is not set"),
        ({"livekit_api_key": ""}, "SYNCBRIDGE_LIVEKIT_API_KEY is not set"),
        ({"livekit_api_secret": ""}, "SYNCBRIDGE_LIVEKIT_API_SECRET is not set"),
        ({"livekit_api_secret": "s" * 31}, "a secret of 32 characters"),
        ({"livekit_webhook_keys": "old:" + "s" * 32 + ", new"}, "a secret of 32 characters"),
        ({"livekit_webhook_keys": ":" + "s" * 32}, "need a key"),
        ({"voice_provider": "rtk"}, "SYNCBRIDGE_LIVEKIT_URL is set.* is rtk, not livekit"),
    ],
)
def test_half_a_livekit_is_refused(values: dict[str, str], words: str) -> None:
    """In one line, without a secret; what would be ignored silently is refused, too."""
    given = {"voice_provider": "livekit", **LIVEKIT, **values}
    with pytest.raises(ConfigError, match=words) as caught:
        check_provider(settings("unix:///nowhere", **given))

    assert "\n" not in str(caught.value)
    assert "sss" not in str(caught.value)


def test_keys_are_rotated() -> None:
    """Webhooks of each key are believed; ours is among them whatever else is written."""
    given = {**LIVEKIT, "livekit_webhook_keys": f"old:{'o' * 32}, key:{'x' * 32}"}

    assert {"old": "o" * 32, "key": "s" * 32} == livekit_secrets(
        settings("unix:///nowhere", **given)
    )


async def test_the_document_shows_the_capabilities() -> None:
    """One row for each, one column for each provider of ours."""
    values = {"rtk_secret_key": "s", **LIVEKIT}
    columns = {name: kind.build(await needs(**values)).capabilities for name, kind in OURS.items()}
    shown = ["| capability | " + " | ".join(f"`{name}`" for name in columns) + " |"]
    for field in Capabilities.__struct_fields__:
        cells = [written(getattr(found, field)) for found in columns.values()]
        shown.append(f"| `{field}` | " + " | ".join(cells) + " |")
    text = DOCS.read_text()

    assert [] == [line for line in shown if line not in text.splitlines()]


def written(value: object) -> str:
    """A value as the document has it."""
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
