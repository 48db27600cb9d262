"""Limits of one user on this node, over all connections.

The hub limits the rate of each connection. For a user with many devices, these apply to all of them
together: a rate of messages, a rate of joins, a number of sockets, and a volume in the store. A
    device has a separate rate of joins: two tabs that keep replacing each other would otherwise
    notify all other devices each time. Services and admins act for many users and have no limits.
"""

from collections.abc import Callable

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.limits import Limits
from syncbridge.rates.buckets import TokenBuckets
from syncbridge.rates.budgets import SESSIONS, Budgets
from syncbridge.records.sessions import Apply

SOCKETS_RETRY_SECONDS = 30.0


class UserQuota:
    """Counts messages, joins and writes. A bound of 0 in the limits is none.

    Args:
        monotonic: the hub's clock, ms.

    Attributes:
        budgets: what users store. on_due: called when a user must be counted.
    """

    def __init__(self, limits: Limits, monotonic: Callable[[], int]) -> None:
        self._monotonic = monotonic
        most = limits.devices if limits.user_sockets else 0
        self._sockets = max(limits.user_sockets, most)  # a session full of devices of one user fits
        self._messages = buckets(limits.user_messages_per_second, limits.user_message_burst)
        burst = max(limits.user_join_burst, limits.devices)
        self._joins = buckets(limits.user_joins_per_second, burst)
        self._device_joins = buckets(limits.device_joins_per_minute / 60, limits.device_join_burst)
        self.budgets = Budgets(limits.user_sessions, limits.user_bytes)
        self.on_due: Callable[[], None] = nothing

    def require(self, identity: Identity | None) -> None:
        """Charge one message. Raises RATE_LIMITED with `retry_after`. O(1)."""
        if identity is not None and not identity.privileged:
            self._take(self._messages, identity.user_id, "too many messages of this user")

    def join(self, identity: Identity, session_id: str, device_id: str, sockets: int) -> None:
        """Charge an AUTH.

        Args:
            sockets: how many the user has here already.

        Raises:
            SyncBridgeError: RATE_LIMITED with a time; QUOTA_EXCEEDED for one session too many.
        """
        if identity.privileged:
            return
        user_id = identity.user_id
        device = f"{session_id} {device_id}"
        self._take(self._device_joins, device, "this device connects again and again")
        self._take(self._joins, user_id, "too many connections of this user in a short time")
        if 0 < self._sockets <= sockets:
            detail = f"this user has {sockets} sockets open here, which is the most"
            raise SyncBridgeError(ErrorCode.RATE_LIMITED, detail, retry_after=SOCKETS_RETRY_SECONDS)
        self._charge(user_id, session_id, 0)

    def keep(self, request: Apply) -> None:
        """Charge a write. Raises QUOTA_EXCEEDED. O(its keys)."""
        if request.owner_check:
            self._charge(request.user_id, request.sid, sum(map(len, request.sets)))

    def _charge(self, user_id: str, session_id: str, size: int) -> None:
        budget = self.budgets.charge(user_id, session_id, size, self._monotonic() / 1000)
        if self.budgets.due:
            self.on_due()
        if budget:
            what = "sessions" if budget == SESSIONS else "bytes in all sessions"
            raise SyncBridgeError(
                ErrorCode.QUOTA_EXCEEDED,
                f"a user may have at most {self.budgets.most(budget)} {what}",
                budget=budget,
                most=self.budgets.most(budget),
            )

    def _take(self, held: TokenBuckets | None, key: str, detail: str) -> None:
        wait = held.take(key, self._monotonic() / 1000) if held is not None else 0.0
        if wait:
            raise SyncBridgeError(ErrorCode.RATE_LIMITED, detail, retry_after=wait)


def buckets(rate: float, burst: int) -> TokenBuckets | None:
    """Token buckets for a rate; None when it is 0."""
    return TokenBuckets(rate, burst) if rate else None


def nothing() -> None:
    """The default of `on_due`."""
