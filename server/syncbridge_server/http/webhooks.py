"""Webhooks of the voice provider: verified, stored, and only then answered.

A webhook that is answered with 200 is stored and will be processed, here or on another node. If it
cannot be stored the answer is 503, so that the provider repeats it. A repeated delivery gets the
same answer and has no effect. Nothing of a body is looked at before its signature was found good.
Its bytes are verified as they came; where that fails and they are coded, once more without their
coding, as a sender that signs first and compresses then has them. Content-Encoding is not signed:
it loses no body that is.

The specification names a path for each kind of event, and one for all of them. The event in the
body is the one that is signed, and the only one that counts; the path is a hint to readers of
access logs. Without a secret to verify with, no webhook is believed.
"""

import time
from collections.abc import Callable, Mapping

import msgspec
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from syncbridge.errors import ErrorCode, StoreError, StoreOverloaded, SyncBridgeError
from syncbridge.voice.provider.events import OtherEvent, UnreadableWebhook
from syncbridge.voice.provider.records import RefusalReason, Verified, WebhookRefused
from syncbridge.voice.stored import WebhookDelivery
from syncbridge_server.http.support.encoding import plain
from syncbridge_server.http.support.paths import PATHS
from syncbridge_server.http.support.problem import read_raw
from syncbridge_server.log import get_logger
from syncbridge_server.openapi.describe import Answer, describe
from syncbridge_server.ports.channels import WebhookInbox
from syncbridge_server.ports.provider import VoiceProvider
from syncbridge_server.telemetry.tracing import TRACING
from syncbridge_server.voice.figures.webhook_metrics import WebhookMetrics

UNVERIFIABLE_RETRY = 10.0
OVERSIZE = 16
"""A body of up to so many times the limit is still read to know who signed it."""
TOO_LARGE = "unreadable: too large, cut off"
NEEDED = "webhook-id, webhook-timestamp and webhook-signature, rtk-signature, or Authorization"
WHY = {
    RefusalReason.MISSING: f"not signed: {NEEDED} are expected",
    RefusalReason.MALFORMED: "the signature's headers cannot be read: v1,<base64>, base64 or a JWT",
    RefusalReason.STALE: "it was signed too far from our time",
    RefusalReason.MISMATCH: "the signature is not that of these bytes with a key of ours",
}
NO_PROVIDER = "no voice provider is configured, so no webhook can be believed"

_log = get_logger("WEBHOOKS")


class WebhookRoutes:
    """The routes.

    Args:
        provider: verifies and reads; None: no webhook is believed.
        inbox: where they wait; None without a provider.
        max_bytes: largest body. clock: Unix seconds.
    """

    def __init__(
        self,
        provider: VoiceProvider | None,
        inbox: WebhookInbox | None,
        metrics: WebhookMetrics,
        max_bytes: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._inbox = inbox
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        """For the application's router."""
        return [Route(path, self.receive, methods=["POST"]) for path in PATHS]

    @describe(
        "A webhook of the voice provider",
        answers={200: Answer("Stored, now or earlier; it will be processed.", str, "text/plain")},
        headers={
            "webhook-id": "Standard Webhooks: id of the delivery; a retry has the same.",
            "webhook-timestamp": "Standard Webhooks: Unix seconds of the attempt.",
            "webhook-signature": "Standard Webhooks: one or more signatures v1,<base64>.",
            "rtk-signature": "RealTimeKit: RSA-SHA256 of the body, base64.",
            "authorization": "LiveKit: a JWT whose `sha256` is the digest of the body, base64.",
        },
        errors=(401, 413, 503),
        public=True,
        tag="rtk",
    )
    async def receive(self, request: Request) -> Response:
        """Any event, told by `type` or `event` in the body. Each path accepts all of them.

        What is signed and cannot be read is kept as a dead letter, with any Content-Encoding.
        """
        try:
            outcome = await self._receive(request)
        except SyncBridgeError as error:
            self._metrics.received.labels(_outcome_of(error)).inc()
            raise
        self._metrics.received.labels(outcome).inc()
        return PlainTextResponse("OK")

    async def _receive(self, request: Request) -> str:
        """What became of it, as a label. Raises what is to be answered instead of 200."""
        most = OVERSIZE * self._max_bytes
        raw = await read_raw(request, most)
        now = self._clock()
        if self._provider is None or self._inbox is None:
            raise SyncBridgeError(ErrorCode.WEBHOOK_SIGNATURE, NO_PROVIDER, reason="unconfigured")
        body, fault = plain(raw, request.headers.get("content-encoding", ""), most)
        verdict = await _verified(self._provider, request.headers, (raw, body), now)
        outcome, reason = self._judge(body, fault, self._provider)
        if outcome == "ignored":
            return outcome
        told = body if verdict.redact is None else verdict.redact(body)
        kept = WebhookDelivery(
            verdict.delivery_id, told[: self._max_bytes], int(now * 1000), reason=reason
        )
        if TRACING.on:
            kept = msgspec.structs.replace(kept, trace=TRACING.current())
        new = await self._inbox.put(kept)
        return outcome if new else "repeated"

    def _judge(self, body: bytes, fault: str, provider: VoiceProvider) -> tuple[str, str]:
        """What is to become of a body that was believed, as a label; why, if only this can tell.

        An unreadable body is stored too: the worker makes it a dead letter. `fault`: of
        its coding, which is the reason if nothing of it can be read.
        """
        if len(body) > self._max_bytes:
            _log.warning("webhook_too_large", size=len(body))
            return "too_large", TOO_LARGE
        events = provider.parse_webhook(body)
        if isinstance(events, UnreadableWebhook):
            _log.warning("webhook_unreadable", reason=events.detail, coding=fault)
            lost = bool(fault) and not events.events
            return "unreadable", f"unreadable: {fault}; {events.detail}" if lost else ""
        ignored = all(isinstance(event, OtherEvent) for event in events)
        return "ignored" if ignored else "accepted", ""


async def _verified(
    provider: VoiceProvider, headers: Mapping[str, str], bodies: tuple[bytes, bytes], now: float
) -> Verified:
    """Who signed the body as it came, or without its coding. Raises `refusal`."""
    raw, body = bodies
    verdict = await provider.verify_webhook(headers, raw, now)
    if isinstance(verdict, Verified):
        return verdict
    if body != raw:
        second = await provider.verify_webhook(headers, body, now)
        if isinstance(second, Verified):
            return second
    raise refusal(verdict)


def refusal(verdict: WebhookRefused) -> SyncBridgeError:
    """The error for a webhook that is not believed."""
    if verdict.reason is RefusalReason.UNVERIFIABLE:
        return SyncBridgeError(
            ErrorCode.PROVIDER_UNAVAILABLE,
            "the provider's public key is unavailable; try again",
            retry_after=UNVERIFIABLE_RETRY,
            reason=verdict.reason.value,
        )
    return SyncBridgeError(
        ErrorCode.WEBHOOK_SIGNATURE, WHY[verdict.reason], reason=verdict.reason.value
    )


def _outcome_of(error: SyncBridgeError) -> str:
    """A label for an error: why a signature was refused, else what went wrong."""
    if isinstance(error, StoreOverloaded):
        return "overloaded"
    if isinstance(error, StoreError):
        return "unavailable"
    if error.code is ErrorCode.TOO_LARGE:
        return "too_large"
    return str(error.fields.get("reason", "unreadable"))
