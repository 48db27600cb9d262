"""What is known to be gone from a call: connections, and users whom polls did not show, or who
did not come over to another room.

Theory of operation. Evidence comes late and twice, so what is gone must not come back by an older
word about it. How it went decides what brings it back:

* a connection whose end is proven, or stated by two sources: nothing; its id is never used again;
* one that two polls did not show: a later poll that does, for polls can be wrong twice;
* one without an id: anything that is newer;
* a user whose last connection went because of polls: the provider, in any way. The client's own
  word only after it was silent for as long as a report holds: until then it repeats what the polls
  have refuted, afterwards it is a newcomer, who may come while the provider cannot be asked;
* what stayed in the room before: the provider, in any way, and a client that names the session of
  the present room, or a connection that was not in the one before. A client that says nothing new
  goes on as it did there; without a name for its connection it too is a newcomer after a silence.

What is held is bounded; the oldest makes room.
"""

from collections.abc import Iterable

from syncbridge.voice.evidence import Joined, Source

Stone = tuple[str, str, int]
"""User, connection, and when (ms)."""


class Tombstones:
    """Of one call. `most`: how many of each kind; `silence_ms`: after which a client is new."""

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
        """Connections that do not come back, oldest first."""
        return tuple((user_id, name, at) for (user_id, name), at in self._gone.items())

    @property
    def unshown(self) -> tuple[Stone, ...]:
        """Connections that polls have removed; without a name, users. Oldest first."""
        return tuple((user_id, name, at) for (user_id, name), at in self._unshown.items())

    @property
    def stranded(self) -> tuple[Stone, ...]:
        """Connections of the rooms before; without a name, users who stayed there."""
        return tuple((user_id, name, at) for (user_id, name), at in self._stranded.items())

    def bury(self, user_id: str, connection_id: str, at: int) -> None:
        """A connection is gone since `at`."""
        self._keep(self._gone, (user_id, connection_id), at)

    def knows(self, user_id: str, connection_id: str) -> bool:
        """Whether a connection is known to be gone."""
        key = (user_id, connection_id)
        return key in self._gone or key in self._unshown

    def unshow(self, user_id: str, connection_id: str, at: int) -> None:
        """Polls have removed a connection, the second one of `at`."""
        if connection_id:
            self._keep(self._unshown, (user_id, connection_id), at)
        else:
            self.bury(user_id, "", at)

    def doubt(self, user_id: str, now: int) -> None:
        """Polls have removed the last connection of a user."""
        self._keep(self._unshown, (user_id, ""), now)

    def strand(self, user_id: str, connection_id: str, now: int, *, whole: bool) -> None:
        """A connection did not come over; `whole`: nor did another one of its user."""
        if connection_id:
            self._keep(self._stranded, (user_id, connection_id), now)
        if whole:
            self._keep(self._stranded, (user_id, ""), now)

    def refuses(self, sign: Joined, connection_id: str) -> bool:
        """Whether a sign does not show a connection that is not held; takes note of it."""
        user_id = sign.user_id
        repeated = False
        if sign.source is Source.CLIENT:  # both take note
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
        """The call has another room. Users whom polls did not show are left in the one before."""
        for key in [key for key in self._unshown if not key[1]]:
            self._keep(self._stranded, key, self._unshown.pop(key))

    def _repeats(self, user_id: str, at: int) -> bool:
        """Whether a client goes on saying what polls have refuted."""
        before = self._unshown.get((user_id, ""))
        if before is None or at > before + self._silence_ms:
            return False
        self._unshown[user_id, ""] = max(before, at)
        return True

    def _strays(self, sign: Joined, connection_id: str) -> bool:
        """Whether a client goes on saying what was true of the room before."""
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
