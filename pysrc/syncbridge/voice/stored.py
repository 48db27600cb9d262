"""Stored voice channels, the news of their changes, and pending webhooks.

Times are Unix ms, those of the caller's clock.
"""

from typing import Any

import msgspec

from syncbridge.voice.records import ChannelRecord


class Stored(msgspec.Struct, frozen=True):
    """A channel as it was read. `revision` 0: it does not exist yet, and the record is new.

    Each write adds 1. A new channel begins above all earlier revisions of its id, far from 0, so
    revisions are never reused.
    """

    record: ChannelRecord
    revision: int


class ChannelNews(msgspec.Struct, frozen=True, omit_defaults=True):
    """The news of a write, published to all nodes.

    Attributes:
        events: messages for the sockets of this channel (`type` and members), in order.
        by: the node that wrote. trace: `traceparent` of the cause of the write.
    """

    channel_id: str
    revision: int
    by: str
    events: list[dict[str, Any]] = []
    trace: str = ""


class Due(msgspec.Struct, frozen=True):
    """A due channel that a node claimed; no other node can claim it for a while."""

    channel_id: str
    due_at: int


class WebhookDelivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A verified webhook in the inbox. `received_at`: Unix ms. `entry`: its id in the stream.

    `attempts`: how often it was taken, this time included. `reason`: why it cannot take effect, if
    that was known on arrival; it becomes a dead letter. `trace`: a `traceparent`.
    """

    delivery_id: str
    body: bytes
    received_at: int
    entry: str = ""
    attempts: int = 0
    reason: str = ""
    trace: str = ""


class DeadLetter(msgspec.Struct, frozen=True):
    """A webhook that could not take effect, or a stored record on which work failed.

    `reason`: a few words without quotes from it. `kind`: of the record `record`; empty for a
    webhook. A record name that is not UTF-8 is decoded with `surrogateescape`.
    """

    entry: str
    delivery_id: str
    received_at: int
    failed_at: int
    reason: str
    body: bytes = b""
    kind: str = ""
    record: str = ""
