"""What tests of authentication share: a clock, keys, a bus and commands that live in memory."""

from collections.abc import Callable, Sequence
from typing import Any

from syncbridge.errors import StoreUnavailable
from syncbridge.identity import Role
from syncbridge.records.sessions import Notice
from syncbridge_server.auth.assembly import Authentication, build_authentication
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.keys import HmacKey
from syncbridge_server.auth.tokens import TokenRules, Tokens
from syncbridge_server.settings import Settings

ACCESS_SECRET = "a" * 40
REFRESH_SECRET = "r" * 40
NOW = 1_800_000_000.0
SESSION = "550e8400-e29b-41d4-a716-446655440000"


class Clock:
    """A clock that only tests move."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class MemoryBus:
    """One node's bus; `others` receive its notices to all."""

    def __init__(self) -> None:
        self.handlers: dict[str, list[Callable[[Notice], None]]] = {}
        self.resync: list[Callable[[], None]] = []
        self.others: list[MemoryBus] = []
        self.told: list[Notice] = []

    def on_commits(self, handler: Any) -> None:
        raise NotImplementedError

    def on_notice(self, kind: str, handler: Callable[[Notice], None]) -> None:
        self.handlers.setdefault(kind, []).append(handler)

    def on_resync(self, handler: Callable[[], None]) -> None:
        self.resync.append(handler)

    def tell(self, node: str, notice: Notice) -> None:
        assert node == "*"
        for bus in [self, *self.others]:
            bus.hear(notice)

    def tell_session(self, notice: Notice) -> None:
        raise NotImplementedError

    def hear(self, notice: Notice) -> None:
        self.told.append(notice)
        for handler in self.handlers.get(notice.kind, []):
            handler(notice)


class MemoryCommands:
    """The few Redis commands that authentication uses, over dictionaries."""

    def __init__(self) -> None:
        self.sorted: dict[str, dict[bytes, float]] = {}
        self.families: dict[str, str] = {}
        self.away = False

    @property
    def connected(self) -> bool:
        return not self.away

    async def execute(self, *args: Any) -> Any:
        if self.away:
            raise StoreUnavailable("Redis is away")
        return getattr(self, f"_{args[0].lower()}")(*args[1:])

    async def script(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        if self.away:
            raise StoreUnavailable("Redis is away")
        assert name == "refresh"
        return self._refresh(keys[0], *args[:3])

    def _refresh(self, key: str, action: str, spent: str, current: str) -> int:
        if action == "open":
            self.families[key] = current
            return 1
        if key not in self.families:
            return 0
        if self.families[key] in ("", spent):
            answer, self.families[key] = (1, current) if self.families[key] else (3, "")
            return answer
        self.families[key] = ""
        return 2

    def _zadd(self, key: str, option: str, score: str, member: bytes) -> int:
        assert option == "GT"
        members = self.sorted.setdefault(key, {})
        members[member] = max(float(score), members.get(member, float("-inf")))
        return 1

    def _pexpire(self, key: str, milliseconds: int) -> int:
        assert milliseconds > 0
        return 1

    def _zremrangebyscore(self, key: str, low: str, high: str) -> int:
        members = self.sorted.get(key, {})
        for member in [m for m, at in members.items() if float(low) <= at <= float(high)]:
            del members[member]
        return 0

    def _zscan(self, key: str, cursor: Any, _count: str, _number: int) -> list[Any]:
        items = self.sorted.get(key, {}).items()
        return [b"0", [part for m, at in items for part in (m, str(at).encode())]]

    def _zrangebyscore(self, key: str, low: str, *rest: Any) -> list[bytes]:
        items = self.sorted.get(key, {}).items()
        return [part for m, at in items if at >= float(low) for part in (m, str(at).encode())]


def make_tokens(**rules: Any) -> Tokens:
    """Tokens with HS256 keys."""
    key = HmacKey(ACCESS_SECRET)
    return Tokens(TokenRules(**rules), key, key, HmacKey(REFRESH_SECRET))


def make_settings(**values: Any) -> Settings:
    """Settings with good secrets."""
    secrets = {"jwt_secret": ACCESS_SECRET, "jwt_refresh_secret": REFRESH_SECRET}
    return Settings(**(secrets | values))


def make_authentication(
    clock: Clock, commands: Any = None, bus: MemoryBus | None = None, **values: Any
) -> Authentication:
    """The whole of authentication over memory, its revocation list not yet read."""
    settings = make_settings(**values)
    return build_authentication(settings, commands or MemoryCommands(), bus or MemoryBus(), clock)


def access_token(user: str, role: Role = Role.USER, now: float = NOW, **grant: Any) -> str:
    """An access token of that user."""
    return make_tokens().mint_access(Grant(user, role, **grant), now)[0]
