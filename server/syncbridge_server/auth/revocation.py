"""Revoked tokens: known on every node, checked on every message.

A rule names a token (`jti`), a login (`family`), or all tokens of a user or device issued up to a
moment. Redis holds the rules in one sorted set, member = rule, score = the moment (Unix seconds).
No token lives longer than `max_life`, so older members are dropped, and no rule needs its own
timer. Each node keeps a copy in a dictionary, so `is_revoked` is at most six look-ups and never
waits.

At most MAX_RULES are kept. Plain users add at most half of them, and each at most MAX_OF_USER on a
node, so nobody can exhaust revocation for others. The reuse of a refresh token revokes its login
whether or not there is room.

A rule for a device also revokes the tokens that this node has seen it use (`UsedTokens`).

A new rule is written to Redis first, then sent to all nodes over the bus. Notices can be lost with
a connection, so a node reads the whole set at the start and after a resync, and the newest part
every 30 seconds. Until the first read has succeeded, nobody is let in (unless `fail_open`).

Moments come from the clock of the revoking node; if the issuing node's clock is ahead, a token
counts as issued that much later.
"""

import heapq
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Literal

import msgspec
import trio

from syncbridge.errors import ErrorCode, StoreError, StoreUnavailable, SyncBridgeError
from syncbridge.identity import Identity
from syncbridge.integrity import TIME_MOST, UNREADABLE
from syncbridge.records.sessions import Notice
from syncbridge_server.auth.used import UsedTokens
from syncbridge_server.auto_reset_event import AutoResetEvent
from syncbridge_server.log import Occasionally, get_logger
from syncbridge_server.ports.store import Bus, RedisCommands

NOTICE = "revoke"
KEY = "revoked"
POLL_SECONDS = 30.0
RETRY_SECONDS = 1.0
LOG_SECONDS = 30.0
OVERLAP_SECONDS = 120.0
MAX_RULES = 200_000
MAX_OF_USER = 256
_PAGE = 1_000

_log = get_logger("AUTH")

Kind = Literal["jti", "family", "user", "device"]
Key = tuple[Kind, str, str]


class Rule(msgspec.Struct, frozen=True):
    """Tokens that are revoked.

    Attributes:
        kind, value: what is revoked. user_id: for a device, only this user's tokens; "" for all.
        at: Unix seconds. For users and devices, later tokens are not revoked.
    """

    kind: Kind
    value: str
    user_id: str = ""
    at: float = 0.0

    def is_recent(self, now: float) -> bool:
        """Whether a node may not know it yet. `now`: Unix seconds."""
        return abs(self.at - now) < OVERLAP_SECONDS

    def matches(self, identity: Identity, device_id: str = "") -> bool:
        """Whether a token is revoked by it. `device_id`: its socket's, if the token has none."""
        match self.kind:
            case "jti":
                return identity.jti == self.value
            case "family":
                return identity.family == self.value
            case "user":
                return identity.user_id == self.value and identity.issued_at <= self.at
            case "device":
                return (
                    self.value in (identity.device_id, device_id)
                    and self.user_id in ("", identity.user_id)
                    and identity.issued_at <= self.at
                )


class Revocations:
    """This node's copy of the rules, and the way to add one.

    Args:
        commands, bus: Redis. max_life: longest life of a token, seconds.
        clock: Unix seconds. fail_open: let everybody in before the first read. prefix: prefix of
            the Redis key.
    """

    def __init__(
        self,
        commands: RedisCommands,
        bus: Bus,
        clock: Callable[[], float],
        max_life: float = 604_800.0,
        fail_open: bool = False,
        prefix: str = "sb:",
    ) -> None:
        self._commands = commands
        self._bus = bus
        self._clock = clock
        self._max_life = max_life
        self._key = prefix + KEY
        self._moments: dict[Key, float] = {}
        self._made: dict[str, dict[Key, float]] = {}
        self._more: list[Rule] = []
        self.used = UsedTokens()
        self._callbacks: list[Callable[[Rule], None]] = []
        self._wanted = AutoResetEvent()
        self._reload = True
        self.ready = fail_open
        bus.on_notice(NOTICE, self._told)
        bus.on_resync(self._ask_reload)

    def __len__(self) -> int:
        return len(self._moments)

    def newest(self, most: int) -> list[Rule]:
        """The newest rules, latest first. O(rules)."""
        found = heapq.nlargest(most, self._moments.items(), key=lambda item: item[1])
        return [Rule(*key, at=at) for key, at in found]

    def is_revoked(self, identity: Identity, device_id: str = "") -> bool:
        """O(1). Raises StoreUnavailable while the rules have never been read."""
        if not self.ready:
            raise StoreUnavailable("the revocation list has not been read yet")
        known = self._moments
        if not known:
            return False
        user = identity.user_id
        dated: list[Key] = [("user", user, "")]
        for device in {identity.device_id, device_id} - {""}:
            dated += [("device", device, ""), ("device", device, user)]
        return (
            ("jti", identity.jti, "") in known
            or (identity.family != "" and ("family", identity.family, "") in known)
            or any(known.get(key, -1.0) >= identity.issued_at for key in dated)
        )

    def require(self, identity: Identity, device_id: str = "") -> None:
        """Raise TOKEN_REVOKED for a revoked token."""
        if (self._moments or not self.ready) and self.is_revoked(identity, device_id):
            raise SyncBridgeError(ErrorCode.TOKEN_REVOKED, "this token was revoked")

    def on_revoke(self, callback: Callable[[Rule], None]) -> None:
        """Call `callback` with each new rule, on the Trio thread, to close sockets."""
        self._callbacks.append(callback)

    async def revoke(
        self, kind: Kind, value: str, user_id: str = "", *, by: str = "", must: bool = False
    ) -> Rule:
        """Add a rule; it takes effect here at once, and soon on all nodes.

        Args:
            by: the plain user who asks. must: even without room.

        Raises:
            SyncBridgeError: OVERLOADED, RATE_LIMITED for a user who has made too many; StoreError.
        """
        rule = Rule(kind, value, user_id, round(self._clock(), 3))
        if not must:
            self._require_room(rule, by)
        await self._add(rule)
        with suppress(StoreError):  # then `run` goes on with it
            await self._add_more()
        return rule

    def _require_room(self, rule: Rule, by: str) -> None:
        """Existing rules need no room, nor does a user who revokes all own tokens."""
        key = rule.kind, rule.value, rule.user_id
        if key in self._moments:
            return
        whole = key == ("user", by, "")
        most = MAX_RULES // 2 if by and not whole else MAX_RULES
        if len(self._moments) >= most:
            raise SyncBridgeError(ErrorCode.OVERLOADED, "too many revocations", retry_after=60.0)
        if by and not whole:
            made = self._made.setdefault(by, {})
            if len(made) >= MAX_OF_USER:
                detail = f"{MAX_OF_USER} revocations at most; take all tokens back by user_id"
                raise SyncBridgeError(ErrorCode.RATE_LIMITED, detail, retry_after=self._max_life)
            made[key] = rule.at

    async def _add_more(self) -> None:
        """Revoke the tokens that revoked devices have used."""
        while self._more:
            rule = self._more.pop()
            try:
                await self._add(rule)
            except BaseException:
                self._more.append(rule)
                raise

    async def _add(self, rule: Rule) -> None:
        kind, value, user_id, now = rule.kind, rule.value, rule.user_id, rule.at
        member = msgspec.json.encode((kind, value, user_id))
        await self._commands.execute("ZADD", self._key, "GT", repr(now), member)
        await self._commands.execute("PEXPIRE", self._key, int(self._max_life * 1000) + 60_000)
        await self._commands.execute("ZREMRANGEBYSCORE", self._key, "-inf", repr(self._oldest()))
        self._learn(rule)
        self._bus.tell("*", Notice(NOTICE, "", msgspec.json.encode(rule)))

    async def run(self) -> None:
        """Keep the copy up to date, for ever."""
        occasionally = Occasionally(LOG_SECONDS, trio.current_time)
        while True:
            wait = POLL_SECONDS
            try:
                await self._add_more()
                await self.load()
            except StoreError as error:
                wait = RETRY_SECONDS
                if not self.ready and occasionally.due():
                    _log.warning("revocation_list_unreadable", reason=error.detail)
            with trio.move_on_after(wait):
                await self._wanted.wait()

    async def load(self) -> None:
        """Read the rules: all of them the first time and after a resync, else the newest."""
        whole, self._reload = self._reload, False
        try:
            rules = await (self._read_all() if whole else self._read_newest())
        except BaseException:
            self._reload = self._reload or whole
            raise
        for rule in rules:
            self._learn(rule)
        self.ready = True
        self._forget_old()

    async def _read_all(self) -> list[Rule]:
        rules, cursor = [], b"0"
        while True:
            cursor, page = await self._commands.execute("ZSCAN", self._key, cursor, "COUNT", _PAGE)
            rules += _rules(page)
            if cursor in (b"0", 0) or len(rules) > 2 * MAX_RULES:
                return rules

    async def _read_newest(self) -> list[Rule]:
        since = repr(self._clock() - OVERLAP_SECONDS)
        bounds = (since, "+inf", "WITHSCORES", "LIMIT", 0, _PAGE)
        page = await self._commands.execute("ZRANGEBYSCORE", self._key, *bounds)
        return _rules(page) if len(page) < 2 * _PAGE else await self._read_all()

    def _learn(self, rule: Rule) -> None:
        key = (rule.kind, rule.value, rule.user_id)
        if rule.at < self._oldest() or rule.at <= self._moments.get(key, -1.0):
            return
        self._moments[key] = rule.at
        if rule.kind == "device":
            self._take_used(rule)
        for callback in self._callbacks:
            callback(rule)

    def _take_used(self, rule: Rule) -> None:
        for kind, value in self.used.of(rule.value, rule.user_id):
            used = Rule(kind, value, "", rule.at)
            if (kind, value, "") not in self._moments:
                self._learn(used)
                self._more.append(used)
                self._wanted.set()

    def _told(self, notice: Notice) -> None:
        try:
            self._learn(msgspec.json.decode(notice.data, type=Rule))
        except UNREADABLE:
            _log.warning("revocation_notice_unreadable")

    def _ask_reload(self) -> None:
        self._reload = True
        self._wanted.set()

    def _oldest(self) -> float:
        return self._clock() - self._max_life - OVERLAP_SECONDS

    def _forget_old(self) -> None:
        oldest = self._oldest()
        self._moments = {key: at for key, at in self._moments.items() if at >= oldest}
        for user, made in list(self._made.items()):
            self._made[user] = {key: at for key, at in made.items() if at >= oldest}
            if not self._made[user]:
                del self._made[user]


def _rules(flat: Iterable[bytes]) -> list[Rule]:
    items, rules = iter(flat), []
    for member, score in zip(items, items, strict=True):
        try:
            kind, value, user_id = msgspec.json.decode(member, type=tuple[Kind, str, str])
        except UNREADABLE:
            _log.warning("revocation_rule_unreadable")
            continue
        # A damaged time, too, is one: what it names stays revoked.
        rules.append(Rule(kind, value, user_id, min(float(score), TIME_MOST / 1000)))
    return rules
