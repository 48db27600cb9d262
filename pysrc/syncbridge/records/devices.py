"""Requests about devices, presence, handoffs and users, and their answers.

Each request is one script. Times are Unix ms.

Three indexes stand in other slots of a cluster than the sessions that they name, so they are
written beside and not within the scripts of a session, and must never be believed without looking:

* presence: in which sessions a lease may be over. An entry may be too early (the session is looked
  at, and entered anew) and is never too late, because every node enters its sessions again with
  each renewal of leases;
* claims: entries that a sweeper has taken out and not yet dealt with, with the time after which
  another one does it;
* users: the sessions of a user, with the time of the last activity.
"""

from zlib import crc32

import msgspec

from syncbridge.records.sessions import Device, Query, Result, Status

BUCKETS = 64
"""Parts of the presence index."""


def bucket_of(sid: str) -> int:
    """The part of the presence index that holds a session."""
    return crc32(sid.encode()) % BUCKETS


class ListDevices(Query):
    """The registered devices of a session. NOT_FOUND when there is neither a session nor one."""

    sid: str
    user_id: str = ""
    owner_check: bool = False


class DeviceList(Result):
    """Answer to `ListDevices`.

    `fence` is the newest number given so far: what has a greater one is news to this list.
    `now` is Redis's time.
    """

    status: Status
    devices: list[Device] = msgspec.field(default_factory=list)
    fence: int = 0
    now: int = 0


class Expel(Query):
    """Remove a device; its live connection may not write any more. NO_DEVICE when not known."""

    sid: str
    device_id: str
    user_id: str = ""
    owner_check: bool = True


class Departure(Result):
    """Answer to `Expel`. `fence`: of the connection that was ended, 0 when there was none."""

    status: Status
    fence: int = 0
    version: int = 0
    epoch: str = ""
    lineage: str = ""


class Index(Query):
    """Enter sessions of one bucket into the presence index."""

    bucket: int
    sids: list[str]
    presence_ms: int


class Claim(Query):
    """Take the sessions of a bucket in which a lease may be over, at most `limit`.

    Nobody else is given them for `claim_ms`. Empty while another node holds the bucket's lease.
    """

    bucket: int
    node: str
    lease_ms: int
    claim_ms: int
    limit: int


class Claimed(Result):
    """Answer to `Claim`."""

    sids: list[str]


class Sweep(Query):
    """Take devices offline whose lease is over now, and tell every node in the session."""

    sid: str
    presence_ms: int


class Swept(Result):
    """Answer to `Sweep`: how many left, and the earliest lease of those that stay (0: none)."""

    left: int
    due: int


class Release(Query):
    """End claims of one bucket. `swept`: pairs of session id and when it is due again, or 0."""

    bucket: int
    swept: list[tuple[str, int]]


class Remember(Query):
    """Note a user's activity in a session."""

    user_id: str
    sid: str


class Forget(Query):
    """Sessions that are not the user's (any more)."""

    user_id: str
    sids: list[str]


class Done(Result):
    """Answer to what has none."""


class ListSessions(Query):
    """A user's sessions, newest activity first, after `(activity, sid)`; at most `limit`."""

    user_id: str
    limit: int
    after: tuple[int, str] | None = None


class SessionList(Result):
    """Answer to `ListSessions`: pairs of session id and activity; `more` is there."""

    sessions: list[tuple[str, int]]
    more: bool


class Peek(Query):
    """What a session is, without its state."""

    sid: str


class Peeked(Result):
    """Answer to `Peek`. `exists`: it has been written. `online`: ids of devices."""

    exists: bool
    owner: str
    version: int
    epoch: str
    updated_at: int
    online: list[str]
    lineage: str = ""


class OpenHandoff(Query):
    """Store a handoff token under its digest. NOT_FOUND, FORBIDDEN."""

    sid: str
    digest: str
    source: str
    target: str
    user_id: str
    owner_check: bool
    life_ms: int


class Handoff(Result):
    """Answer to `OpenHandoff`. `dropped`: digests of the oldest tokens, which are too many now."""

    status: Status
    expires_at: int = 0
    dropped: list[str] = msgspec.field(default_factory=list)


class Redeem(Query):
    """Use a handoff token, as the device `device_id`; empty stands for the token's target.

    NOT_FOUND (session), FORBIDDEN, NO_TOKEN, SPENT, EXPIRED, WRONG_DEVICE: nothing was done.
    """

    sid: str
    digest: str
    device_id: str
    user_id: str
    owner_check: bool
    reread_ms: int


class Redeemed(Result):
    """Answer to `Redeem`: the state as it was then, the same for each repetition.

    `fence`: of the source's connection, which may not write any more; 0 when it had none.
    """

    status: Status
    source: str = ""
    target: str = ""
    version: int = 0
    epoch: str = ""
    flat: list[bytes] = msgspec.field(default_factory=list)
    fence: int = 0
    lineage: str = ""
