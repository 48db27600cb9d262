"""What makes a voice provider out of the settings: the object behind an entry point.

A package adds a provider by an entry point in the group `syncbridge.voice_providers`. Its name is
the value of SYNCBRIDGE_VOICE_PROVIDER that chooses it, and its object a `ProviderKind`:

    [project.entry-points."syncbridge.voice_providers"]
    mine = "my_package:KIND"
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from syncbridge.voice.provider.budget import RequestBudget
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.settings import Settings

if TYPE_CHECKING:
    import httpx

GROUP = "syncbridge.voice_providers"


@dataclass(frozen=True)
class Needs:
    """What a provider is built from.

    Attributes:
        client: for all requests to the provider; who made it closes it.
        budget: of requests; ask it before each. clock: Unix seconds.
    """

    settings: Settings
    client: "httpx.AsyncClient"
    budget: RequestBudget
    clock: Callable[[], float] = time.time


class ProviderKind(Protocol):
    """One way to have voice."""

    def check(self, settings: Settings) -> None:
        """Raise ConfigError, one line without secrets, unless it can work with these settings."""

    def build(self, needs: Needs) -> VoiceProvider:
        """The provider. Nothing is asked yet."""
