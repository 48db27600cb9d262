"""Voice channels as they are stored, what their changes tell, and webhooks that wait for them.

Times are Unix ms, those of the caller's clock.
"""

from typing import Any

import msgspec

from syncbridge.voice.records import ChannelRecord


class Stored(msgspec.Struct, frozen=True):
    """A channel as it was read. `revision` 0: there is none yet, and the record is a new one.

    Each write adds 1. A channel that comes into being begins above every revision that its id has
    had before, far from 0: revisions are never used again.
    """

    record: ChannelRecord
    revision: int


class ChannelNews(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a write changed, as every node is told.

    Attributes:
        events: messages for the sockets of this channel (`type` and members), in order.
        by: the node that wrote. trace: of what made it write, as `traceparent`.
    """

    channel_id: str
    revision: int
    by: str
    events: list[dict[str, Any]] = []
    trace: str = ""


class Due(msgspec.Struct, frozen=True):
    """A channel that was claimed because something is due; nobody else gets it for a while."""

    channel_id: str
    due_at: int


class WebhookDelivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A webhook that was believed, as it waits. `received_at` Unix ms; `entry` is its place.

    `attempts`: how often it has been taken, this time included. `reason`: why it cannot be taken
    in, where that was known when it came; it becomes a dead letter. `trace`: a `traceparent`.
    """

    delivery_id: str
    body: bytes
    received_at: int
    entry: str = ""
    attempts: int = 0
    reason: str = ""
    trace: str = ""


class DeadLetter(msgspec.Struct, frozen=True):
    """What could not be taken in: a webhook, or a stored record on which a chore failed.

    `reason` in a few words, quoting nothing of it. `kind`: of the record `record`; empty for a
    webhook. The name of a record that is not UTF-8 is read with `surrogateescape`.
    """

    entry: str
    delivery_id: str
    received_at: int
    failed_at: int
    reason: str
    body: bytes = b""
    kind: str = ""
    record: str = ""
