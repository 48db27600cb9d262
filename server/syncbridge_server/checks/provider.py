"""Whether the voice provider answers, with the key that is configured."""

from syncbridge.voice.provider.capabilities import RegisteredBy
from syncbridge.voice.provider.records import CannotVerify, VerifyFailure
from syncbridge_server.checks.findings import Finding, Level
from syncbridge_server.settings import Settings
from syncbridge_server.voice.from_settings import request_budget
from syncbridge_server.voice.provider.calling import new_client
from syncbridge_server.voice.provider.kind import Needs
from syncbridge_server.voice.provider.kinds import kind_of

NAME = "voice"


async def check_voice(settings: Settings) -> list[Finding]:
    """One list of calls is asked for; that none is under way is an answer."""
    if not settings.voice:
        return [Finding(NAME, Level.SKIPPED, "no voice provider is configured")]
    async with new_client() as client:
        needs = Needs(settings, client, request_budget(settings))
        provider = kind_of(settings.voice_provider).build(needs)
        answer = await provider.list_active(limit=1)
    if isinstance(answer, CannotVerify) and answer.doubt is not VerifyFailure.EMPTY:
        why = f"{answer.doubt}: {answer.detail}".removesuffix(": ")
        return [Finding(NAME, Level.FAILED, f"{settings.voice_provider}: {why}")]
    told = provider.capabilities.webhooks_registered_by is RegisteredBy.CONFIGURATION
    if not told and not settings.worker_url:
        text = f"{settings.voice_provider} answers; WORKER_URL is not set: no webhooks are ordered"
        return [Finding(NAME, Level.WARNING, text)]
    return [Finding(NAME, Level.OK, f"{settings.voice_provider} answers")]
