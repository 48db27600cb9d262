"""Webhooks of the simulated provider: bodies in both dialects, signed, sent in order.

One task takes events from a bounded queue and sends each to every registration, so they arrive in
order unless a fault changes that. Withheld webhooks are sent when the faults change. After a 5xx
answer, or none, a webhook is sent again twice with the same id; abandoned webhooks are counted.
Redirects are not followed.
"""

import base64
import json
import uuid
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import httpx
import trio
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from syncbridge.voice.provider import signatures
from syncbridge_server.voice.payload import unbroken
from syncbridge_tools.rtk_sim.faults import FaultSwitch
from syncbridge_tools.rtk_sim.world import Happening, World

QUEUE = 1000
LOG = 1000
PAUSES = (0.1, 0.5)
TIMEOUT = 3.0
SPEC_KINDS = {
    "started": ("session.started", ""),
    "joined": ("participant.joined", "participantJoined"),
    "left": ("participant.left", "participantLeft"),
    "ended": ("session.ended", "sessionEnded"),
    "recording": ("recording.ready", "recordingReady"),
    "speaking": ("participant.speaking", ""),
}
ALL_ELSE = "*"
"""The URL of a session (`webhookUrl`) for what has no URL of its own among its `webhooks`."""
CLOUDFLARE_KINDS = {  # Nobody is notified of speaking.
    "started": "meeting.started",
    "joined": "meeting.participantJoined",
    "left": "meeting.participantLeft",
    "ended": "meeting.ended",
    "recording": "recording.statusUpdate",
    "transcript": "meeting.transcript",
    "summary": "meeting.summary",
}
TEXTS = ("transcript", "summary")
"""Of these the specification's dialect says nothing."""
WEEK = 604_800

Delivery = tuple[str, bytes, dict[str, str]]
"""URL, body, headers."""


class RsaSigner:
    """A key pair as RealTimeKit has one."""

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)

    @property
    def public_pem(self) -> str:
        """The public key, as the provider publishes it."""
        public = self._key.public_key()
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return public.public_bytes(serialization.Encoding.PEM, form).decode()

    def sign(self, body: bytes) -> str:
        """The value of `rtk-signature`."""
        return base64.b64encode(self._key.sign(body, padding.PKCS1v15(), hashes.SHA256())).decode()


class SimReports:
    """Sends webhooks.

    Args:
        secret: key of Standard Webhooks. signer: key of RealTimeKit's webhooks.
    """

    def __init__(self, world: World, switch: FaultSwitch, secret: bytes, signer: RsaSigner) -> None:
        self._world = world
        self._switch = switch
        self._secret = secret
        self.signer = signer
        self._send, self._receive = trio.open_memory_channel[Happening | None](QUEUE)
        self._held: dict[str, Delivery] = {}
        self._letting_go = False
        self.log: deque[dict[str, Any]] = deque(maxlen=LOG)
        self.dropped = 0

    def tell(self, happened: list[Happening]) -> None:
        """Queue events; those above the bound are dropped and counted."""
        for happening in happened:
            try:
                self._send.send_nowait(happening)
            except trio.WouldBlock:
                self.dropped += 1

    def reset(self) -> None:
        """Drop withheld webhooks and the log."""
        self.dropped = 0
        self._held.clear()
        self.log.clear()

    def let_go(self) -> None:
        """Send the withheld webhooks now."""
        self._letting_go = True
        with suppress(trio.WouldBlock):
            self._send.send_nowait(None)

    async def run(self) -> None:
        """Send, for ever."""
        async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
            async for happening in self._receive:
                for delivery in self._deliveries(happening) if happening else ():
                    for one in await self._spoilt(delivery):
                        await self._deliver(client, one)
                if self._letting_go:
                    await self._deliver_held(client)

    async def _deliver_held(self, client: httpx.AsyncClient) -> None:
        self._letting_go = False
        held, self._held = self._held, {}
        for delivery in held.values():
            await self._deliver(client, delivery)

    def _deliveries(self, happening: Happening) -> list[Delivery]:
        if happening.kind in TEXTS:
            return self._real_deliveries(happening)
        kind, name = SPEC_KINDS[happening.kind]
        urls = [hook.url for hook in self._world.hooks.values() if hook.dialect == "spec"]
        own = happening.room.hooks
        urls += [own[key] for key in (name, ALL_ELSE) if key in own][:1]
        body = spec_body(kind, happening)
        urls = [] if happening.failed else urls
        spec = [(url, body, self._spec_headers(body)) for url in dict.fromkeys(urls)]
        return [*spec, *self._real_deliveries(happening)]

    def _real_deliveries(self, happening: Happening) -> list[Delivery]:
        kind = CLOUDFLARE_KINDS.get(happening.kind)
        hooks = [h for h in self._world.hooks.values() if h.enabled and kind in h.events]
        if kind is None or not hooks:
            return []
        body = cloudflare_body(happening)
        return [(hook.url, body, self._rsa_headers(body, hook.id)) for hook in hooks]

    async def _spoilt(self, delivery: Delivery) -> list[Delivery]:
        """The deliveries to send for one delivery under the active faults."""
        faults = self._switch.now
        if "lost" in faults.webhooks:
            self._note(delivery, "lost")
            return []
        if "late" in faults.webhooks:
            await trio.sleep(faults.webhook_delay_ms / 1000)
        if "forged" in faults.webhooks:
            delivery = self._forged(delivery)
        if "reordered" in faults.webhooks:
            held = self._held.pop(delivery[0], None)
            if held is None:
                self._held[delivery[0]] = delivery
                return []
            return [delivery, held]
        return [delivery, delivery] if "repeated" in faults.webhooks else [delivery]

    def _forged(self, delivery: Delivery) -> Delivery:
        url, body, headers = delivery
        return url, body.replace(b'"', b' "', 1), headers

    async def _deliver(self, client: httpx.AsyncClient, delivery: Delivery) -> None:
        url, body, headers = delivery
        for pause in (*PAUSES, None):
            outcome = await _post(client, url, body, headers)
            self._note(delivery, outcome)
            if outcome.isdigit() and int(outcome) < 500:
                return
            if pause is not None:
                await trio.sleep(pause)

    def _note(self, delivery: Delivery, outcome: str) -> None:
        self.log.append({"url": delivery[0], "outcome": outcome, "body": json.loads(delivery[1])})

    def _spec_headers(self, body: bytes) -> dict[str, str]:
        delivery_id, now = f"msg_{uuid.uuid4().hex}", int(_now())
        return {
            "content-type": "application/json",
            signatures.ID_HEADER: delivery_id,
            signatures.TIMESTAMP_HEADER: str(now),
            signatures.SIGNATURE_HEADER: signatures.sign(self._secret, delivery_id, now, body),
        }

    def _rsa_headers(self, body: bytes, hook_id: str) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "rtk-signature": self.signer.sign(body),
            "rtk-uuid": str(uuid.uuid4()),
            "rtk-webhook-id": hook_id,
        }


async def _post(client: httpx.AsyncClient, url: str, body: bytes, headers: dict[str, str]) -> str:
    """Send a webhook; returns the status or the name of the error. Shielded for TIMEOUT seconds."""
    try:
        with trio.fail_after(TIMEOUT, shield=True):
            request = client.build_request("POST", url, content=body, headers=headers)
            return str((await client.send(unbroken(request))).status_code)
    except (httpx.HTTPError, trio.TooSlowError) as error:
        return type(error).__name__


def spec_body(kind: str, happening: Happening) -> bytes:
    """A webhook of the specification."""
    body: dict[str, Any] = {
        "type": kind,
        "sessionId": happening.room.id,
        "timestamp": int(happening.at * 1000),
    }
    if happening.peer is not None:
        body["participantId"] = happening.peer.user_id
        body["peerId"] = happening.peer.id
        body["joinedAt"] = int(happening.peer.joined_at * 1000)
        body["metadata"] = {"userId": happening.peer.user_id}
    if happening.kind == "speaking":
        body["isSpeaking"] = happening.speaking
    if happening.recording:
        body["recordingId"] = happening.recording
        body["url"] = f"https://recordings.invalid/{happening.recording}.m4a"
    return json.dumps(body).encode()


def cloudflare_body(happening: Happening) -> bytes:
    """A webhook of RealTimeKit."""
    room = happening.room
    meeting: dict[str, Any] = {
        "id": room.id,
        "sessionId": happening.occupancy,
        "title": room.title,
        "status": "LIVE",
        "createdAt": iso(room.created_at),
        "startedAt": iso(room.created_at),
    }
    body: dict[str, Any] = {"event": CLOUDFLARE_KINDS[happening.kind], "meeting": meeting}
    if happening.kind == "ended":
        meeting["endedAt"] = iso(happening.at)
        body["reason"] = "ALL_PARTICIPANTS_LEFT"
    if happening.peer is not None:
        body["participant"] = _peer(happening)
    if happening.recording:
        body["recording"] = {
            "id": happening.recording,
            "recordingId": happening.recording,
            "status": "ERRORED" if happening.failed else "UPLOADED",
            "meetingId": room.id,
            "roomUUID": happening.occupancy,
            "downloadUrl": f"https://recordings.invalid/{happening.recording}.m4a",
            "stoppedTime": iso(happening.at),
        }
    if happening.kind in TEXTS:
        body[f"{happening.kind}DownloadUrl"] = happening.text_url
        body[f"{happening.kind}DownloadUrlExpiry"] = iso(happening.at + WEEK)
    return json.dumps(body).encode()


def _peer(happening: Happening) -> dict[str, Any]:
    assert happening.peer is not None
    peer = {
        "peerId": happening.peer.id,
        "userDisplayName": happening.peer.user_id,
        "customParticipantId": happening.peer.user_id,
        "joinedAt": iso(happening.peer.joined_at),
    }
    if happening.kind == "left":
        peer["leftAt"] = iso(happening.at)
    return peer


def iso(at: float) -> str:
    """Unix seconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _now() -> float:
    return datetime.now(UTC).timestamp()
