"""Requests about devices, presence, handoffs and users, and their answers.

Each request is one script. Times are Unix ms.

The index of a user's sessions stands in another slot of a cluster than the sessions that it names,
so it is written beside and not within the scripts of a session, and must never be believed without
looking.
"""

import msgspec

from syncbridge.records.sessions import Device, Query, Result, Status


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
    """Remove a device; its connection may no longer write. NO_DEVICE when not known."""

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


class Remember(Query):
    """Note a user's activity in a session."""

    user_id: str
    sid: str


class Forget(Query):
    """Sessions that are not the user's (any more)."""

    user_id: str
    sids: list[str]


class Done(Result):
    """Answer to requests without a result."""


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
    """A session without its state."""

    sid: str


class Peeked(Result):
    """Answer to `Peek`. `exists`: it has been written. `online`: ids of devices. `size`: bytes of
    its keys and values."""

    exists: bool
    owner: str
    version: int
    epoch: str
    updated_at: int
    online: list[str]
    lineage: str = ""
    size: int = 0


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
