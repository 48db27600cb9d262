"""Tombstones of a call: removed connections, users that polls did not show, and users who did not
come over to another room.

Theory of operation. Evidence arrives late and repeatedly, so older evidence must not bring back
what is gone. The way it went decides what brings it back:

* a connection whose end is proven, or stated by two sources: nothing, since its id is never reused;
* a connection that two polls did not show: a later poll that shows it, because two polls can be
  wrong;
* an unnamed connection: any newer evidence;
* a user whose last connection was removed by polls: any evidence of the provider. A client's report
  counts only after a silence of the length of a lease: before, it repeats what the polls refuted;
  afterwards it is a new join, which must be possible while the provider cannot be asked;
* a user or connection left in the previous room: any evidence of the provider, and a client that
  names the current session, or a connection that was not in the previous room. Other reports repeat
  the state of the previous room; without a connection id, a report counts after a silence.

Each table is bounded; the oldest entry is dropped.
"""

from collections.abc import Iterable

from syncbridge.voice.evidence import Joined, Source

Stone = tuple[str, str, int]
"""User, connection, and when (ms)."""


class Tombstones:
    """The tombstones of one call.

    Args:
        most: maximum number of each kind.
        silence_ms: silence after which a client's report counts as a new join.
    """

    def __init__(
        self,
        most: int,
        silence_ms: int,
        gone: Iterable[Stone] = (),
        unshown: Iterable[Stone] = (),
        stranded: Iterable[Stone] = (),
    ) -> None:
        self._most = most
        self._silence_ms = silence_ms
        self._gone = {(user_id, connection): at for user_id, connection, at in gone}
        self._unshown = {(user_id, connection): at for user_id, connection, at in unshown}
        self._stranded = {(user_id, connection): at for user_id, connection, at in stranded}

    @property
    def gone(self) -> tuple[Stone, ...]:
        """Connections that cannot come back, oldest first."""
        return tuple((user_id, name, at) for (user_id, name), at in self._gone.items())

    @property
    def unshown(self) -> tuple[Stone, ...]:
        """Connections that polls removed; with an empty id, users. Oldest first."""
        return tuple((user_id, name, at) for (user_id, name), at in self._unshown.items())

    @property
    def stranded(self) -> tuple[Stone, ...]:
        """Connections of previous rooms; with an empty id, users who stayed there."""
        return tuple((user_id, name, at) for (user_id, name), at in self._stranded.items())

    def bury(self, user_id: str, connection_id: str, at: int) -> None:
        """Note a connection that is gone since `at`."""
        self._keep(self._gone, (user_id, connection_id), at)

    def knows(self, user_id: str, connection_id: str) -> bool:
        """Whether a connection is known to be gone."""
        key = (user_id, connection_id)
        return key in self._gone or key in self._unshown

    def unshow(self, user_id: str, connection_id: str, at: int) -> None:
        """Note a connection that polls removed, the second one at `at`."""
        if connection_id:
            self._keep(self._unshown, (user_id, connection_id), at)
        else:
            self.bury(user_id, "", at)

    def doubt(self, user_id: str, now: int) -> None:
        """Note a user whose last connection was removed by polls."""
        self._keep(self._unshown, (user_id, ""), now)

    def strand(self, user_id: str, connection_id: str, now: int, *, whole: bool) -> None:
        """Note a connection that did not come over. `whole`: no connection of its user did."""
        if connection_id:
            self._keep(self._stranded, (user_id, connection_id), now)
        if whole:
            self._keep(self._stranded, (user_id, ""), now)

    def refuses(self, sign: Joined, connection_id: str) -> bool:
        """Whether a sign of a connection is refused; updates the tombstones."""
        user_id = sign.user_id
        repeated = False
        if sign.source is Source.CLIENT:  # both update their table
            repeated = any([self._repeats(user_id, sign.at), self._strays(sign, connection_id)])
        gone = self._gone.get((user_id, connection_id))
        if gone is not None and (connection_id or sign.at <= gone):
            return True
        unshown = self._unshown.get((user_id, connection_id)) if connection_id else None
        if unshown is not None and (sign.source is not Source.POLL or sign.at <= unshown):
            return True
        if repeated:
            return True
        for name in ("", connection_id):
            self._unshown.pop((user_id, name), None)
            self._stranded.pop((user_id, name), None)
        return False

    def migrated(self) -> None:
        """Handle a migration: users that polls did not show count as left in the old room."""
        for key in [key for key in self._unshown if not key[1]]:
            self._keep(self._stranded, key, self._unshown.pop(key))

    def _repeats(self, user_id: str, at: int) -> bool:
        """Whether a client repeats what polls refuted."""
        before = self._unshown.get((user_id, ""))
        if before is None or at > before + self._silence_ms:
            return False
        self._unshown[user_id, ""] = max(before, at)
        return True

    def _strays(self, sign: Joined, connection_id: str) -> bool:
        """Whether a client repeats what was true in the previous room."""
        key = (sign.user_id, connection_id)
        before = self._stranded.get(key)
        if before is None or sign.session_named:
            return False
        if not connection_id and sign.at > before + self._silence_ms:
            return False
        self._stranded[key] = max(before, sign.at)
        return True

    def _keep(self, stones: dict[tuple[str, str], int], key: tuple[str, str], at: int) -> None:
        stones[key] = max(at, stones.pop(key, at))
        while len(stones) > self._most:
            del stones[next(iter(stones))]
