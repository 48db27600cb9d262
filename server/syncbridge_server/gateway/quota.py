"""Messages of one user over all of their connections on this node, held to a rate.

The hub holds each connection to a rate; a user with many devices gets this one for all of them
together. Services and admins speak for many users and are held by the hub alone.
"""

from collections.abc import Callable

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.limits import Limits
from syncbridge.rates.buckets import TokenBuckets


class UserQuota:
    """Counts messages. A rate of 0 in the limits is none.

    Args:
        monotonic: the hub's clock, ms.
    """

    def __init__(self, limits: Limits, monotonic: Callable[[], int]) -> None:
        self._monotonic = monotonic
        self._buckets = None
        if limits.user_messages_per_second:
            rate, burst = limits.user_messages_per_second, limits.user_message_burst
            self._buckets = TokenBuckets(rate, burst)

    def require(self, identity: Identity | None) -> None:
        """Take one message into account. Raises RATE_LIMITED with a time. O(1)."""
        if self._buckets is None or identity is None or identity.privileged:
            return
        wait = self._buckets.take(identity.user_id, self._monotonic() / 1000)
        if wait:
            raise SyncBridgeError(
                ErrorCode.RATE_LIMITED, "too many messages of this user", retry_after=wait
            )
