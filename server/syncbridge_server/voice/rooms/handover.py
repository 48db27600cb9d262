"""Hands a call over together with its session.

The order matters. First the provider issues a token for the new device. Then the channel notes that
the call is about to move; the current device keeps the call until the new device is in the media
(`syncbridge.voice.holding`). If the provider refuses or is slow, the session is still handed over
and the call stays on its device. The new device can retry while it can read the handoff again.

The caller's grants are checked as for every token. A service or admin that acts for a user passes
on the user's latest grant, not its own rights.
"""

from collections.abc import Iterator
from functools import partial

import msgspec
import structlog
import trio

from syncbridge.errors import SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.voice.announcements import Message
from syncbridge.voice.channel import Channel
from syncbridge.voice.grants import require
from syncbridge.voice.naming import id_of_key
from syncbridge.voice.provider.errors import ProviderError
from syncbridge.voice.reporting import hand_over
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.figures.metrics import ChannelMetrics
from syncbridge_server.voice.rooms.tokens import VoiceToken, VoiceTokens
from syncbridge_server.voice.sockets.live_calls import LiveCall, LiveCalls

log = structlog.get_logger("voice")

SECONDS = 5.0
"""Deadline for the call's part of a handoff."""


class HandedCall(msgspec.Struct, frozen=True):
    """The result of handing a call over with its session.

    Attributes:
        channel_id: in the waddle `waddle_id`.
        token: token for the new device; None if there is an `error`.
        retry_after: seconds until a retry makes sense.
    """

    channel_id: str
    waddle_id: str
    token: VoiceToken | None = None
    error: str = ""
    retry_after: float | None = None


class Handover:
    """Moves calls between devices and counts the steps: `failed`, or `begun` and then `moved` or
    `expired`."""

    def __init__(
        self,
        live_calls: LiveCalls,
        writer: ChannelWriter,
        tokens: VoiceTokens,
        metrics: ChannelMetrics,
    ) -> None:
        self._live_calls = live_calls
        self._writer = writer
        self._tokens = tokens
        self._steps = metrics.handovers
        writer.on_written(self._count)

    async def take_along(
        self, identity: Identity, session_id: str, source: str, target: str
    ) -> HandedCall | None:
        """Let `target` take over the call that `source` holds; None when it holds none.

        Args:
            identity: the caller; without a grant for the channel there is no token.
        """
        call = self._live_calls.calls.get(self._live_calls.held_by(session_id, source))
        if call is None:
            return None
        handed = await self._try(identity, call, session_id, source, target)
        if handed is not None and handed.error:
            self._steps.labels("failed").inc()
        return handed

    async def _try(
        self, identity: Identity, call: LiveCall, session_id: str, source: str, target: str
    ) -> HandedCall | None:
        channel_id, people = call.channel_id, call.view.participants.items()
        told = partial(HandedCall, id_of_key(channel_id), call.view.head.waddle_id)
        user_id = next(u for u, p in people if (p.sid, p.device_id) == (session_id, source))
        try:
            with trio.fail_after(SECONDS):
                token = await self._move(identity, channel_id, user_id, session_id, target)
                return told(token) if token is not None else None
        except trio.TooSlowError:
            return told(error="network_error", retry_after=1.0)
        except ProviderError as error:
            log.info("voice_handover_failed", channel_id=channel_id, code=error.code.value)
            return told(error=error.code.value, retry_after=error.retry_after)
        except SyncBridgeError as error:
            log.info("voice_handover_failed", channel_id=channel_id, code=error.code.wire)
            return told(error=error.code.wire, retry_after=error.retry_after)

    async def _move(
        self, identity: Identity, channel_id: str, user_id: str, session_id: str, target: str
    ) -> VoiceToken | None:
        record = (await self._writer.read(channel_id)).record
        participant = record.participants.get(user_id)
        if participant is None:
            return None
        allowed = participant.permissions
        if not identity.privileged:
            allowed = require(identity, record.waddle_id, record.public_id)
        token = await self._tokens.issue(
            user_id,
            user_id,
            record.waddle_id,
            channel_id,
            allowed,
            device_id=target,
            sid=session_id,
        )
        await self._writer.change(
            channel_id, lambda channel, now: hand_over(channel, user_id, target, session_id, now)
        )
        return token

    def _count(self, channel: Channel) -> None:
        """Count the steps in a write."""
        for step in steps_of(channel.news):
            self._steps.labels(step).inc()


def steps_of(news: list[Message]) -> Iterator[str]:
    """The handover steps among the messages to devices."""
    for message in news:
        match message.get("state"), message.get("reason"):
            case "moving", _:
                yield "begun"
            case "released", "handoff":
                yield "moved"
            case "held", "expired":
                yield "expired"
