"""The interface that builds a voice provider from the settings.

A package adds a provider with an entry point in the group `syncbridge.voice_providers`. Its name is
the value of SYNCBRIDGE_VOICE_PROVIDER that selects it, and its object is a `ProviderKind`:

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
    """The dependencies of a provider.

    Attributes:
        client: for all requests to the provider; its creator closes it.
        budget: request budget; take a token before each request. clock: Unix seconds.
    """

    settings: Settings
    client: "httpx.AsyncClient"
    budget: RequestBudget
    clock: Callable[[], float] = time.time


class ProviderKind(Protocol):
    """A kind of voice provider."""

    def check(self, settings: Settings) -> None:
        """Raise ConfigError, one line without secrets, if it cannot work with these settings."""

    def build(self, needs: Needs) -> VoiceProvider:
        """Build the provider without sending a request."""
