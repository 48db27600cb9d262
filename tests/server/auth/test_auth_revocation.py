"""Revocations: what a rule means, how nodes learn of it, and what happens without Redis."""

import pytest
import trio
import trio.testing

from support.auth_kit import NOW, Clock, MemoryBus, MemoryCommands
from syncbridge.errors import ErrorCode, StoreUnavailable, SyncBridgeError
from syncbridge.identity import Identity, Role
from syncbridge.records.sessions import Notice
from syncbridge_server.auth import revocation, used
from syncbridge_server.auth.revocation import KEY, POLL_SECONDS, Kind, Revocations, Rule


def identity(issued_at: float = NOW, device_id: str = "phone", user_id: str = "alice") -> Identity:
    """A token of Alice's phone."""
    return Identity(
        user_id,
        Role.USER,
        "j1",
        issued_at,
        issued_at + 900,
        device_id=device_id,
        family="f1",
    )


class Node:
    """A node with its own copy of the rules."""

    def __init__(self, commands: MemoryCommands, clock: Clock, fail_open: bool = False) -> None:
        self.bus = MemoryBus()
        self.rules = Revocations(commands, self.bus, clock, fail_open=fail_open)
        self.heard: list[Rule] = []
        self.rules.on_revoke(self.heard.append)


async def loaded_node() -> tuple[Node, MemoryCommands, Clock]:
    """A node that has read the (empty) list."""
    commands, clock = MemoryCommands(), Clock()
    node = Node(commands, clock)
    await node.rules.load()
    return node, commands, clock


@pytest.mark.parametrize(
    ("kind", "value", "owner", "revoked"),
    [
        ("jti", "j1", "", True),
        ("jti", "j2", "", False),
        ("family", "f1", "", True),
        ("family", "f2", "", False),
        ("user", "alice", "", True),
        ("user", "alic", "", False),
        ("device", "phone", "", True),
        ("device", "phone", "alice", True),
        ("device", "phone", "bob", False),
        ("device", "tablet", "", False),
    ],
)
async def test_rule_names_tokens(kind: Kind, value: str, owner: str, revoked: bool) -> None:
    """A rule means the tokens it names; the rule itself and the look-up agree."""
    node, _, _ = await loaded_node()

    rule = await node.rules.revoke(kind, value, owner)

    assert revoked is node.rules.is_revoked(identity())
    assert revoked is rule.matches(identity())
    assert [rule] == node.heard


@pytest.mark.parametrize(("kind", "value"), [("user", "alice"), ("device", "phone")])
async def test_later_tokens_are_not_meant(kind: Kind, value: str) -> None:
    """A user or device signs in again after the revocation."""
    node, _, _ = await loaded_node()
    rule = await node.rules.revoke(kind, value)

    assert not node.rules.is_revoked(identity(issued_at=NOW + 0.001))
    assert not rule.matches(identity(issued_at=NOW + 0.001))


async def test_device_of_the_socket_counts_when_the_token_names_none() -> None:
    """A token without a device is refused on a revoked device, and good elsewhere."""
    node, _, _ = await loaded_node()
    rule = await node.rules.revoke("device", "phone")
    bare = identity(device_id="")

    assert node.rules.is_revoked(bare, "phone")
    assert rule.matches(bare, "phone")
    assert not node.rules.is_revoked(bare, "tablet")
    assert not node.rules.is_revoked(bare)


async def test_require_raises_token_revoked() -> None:
    """The caller of a revoked token is told so."""
    node, _, _ = await loaded_node()
    node.rules.require(identity())
    await node.rules.revoke("jti", "j1")

    with pytest.raises(SyncBridgeError) as caught:
        node.rules.require(identity())
    assert ErrorCode.TOKEN_REVOKED is caught.value.code


async def test_other_nodes_hear_of_it() -> None:
    """A rule made on one node holds on another at once, which tells its sockets once."""
    first, commands, clock = await loaded_node()
    second = Node(commands, clock)
    await second.rules.load()
    first.bus.others.append(second.bus)

    await first.rules.revoke("user", "alice")

    assert second.rules.is_revoked(identity())
    assert 1 == len(second.heard) == len(first.heard)


async def test_a_new_node_reads_what_was_there() -> None:
    """The list outlives nodes."""
    first, commands, clock = await loaded_node()
    await first.rules.revoke("device", "phone", "alice")
    second = Node(commands, clock)

    await second.rules.load()

    assert second.rules.is_revoked(identity())


async def test_nobody_is_let_in_before_the_list_was_read() -> None:
    """Without Redis at the start tokens are refused with 503, unless configured otherwise."""
    commands, clock = MemoryCommands(), Clock()
    commands.away = True
    closed, opened = Node(commands, clock), Node(commands, clock, fail_open=True)
    for node in (closed, opened):
        with pytest.raises(StoreUnavailable):
            await node.rules.load()

    with pytest.raises(StoreUnavailable):
        closed.rules.is_revoked(identity())
    assert not opened.rules.is_revoked(identity())


async def test_a_list_once_read_stays_good_without_redis() -> None:
    """Losing Redis later changes nothing about what is known; new rules cannot be made."""
    node, commands, _ = await loaded_node()
    await node.rules.revoke("jti", "j1")
    commands.away = True

    with pytest.raises(StoreUnavailable):
        await node.rules.revoke("jti", "j9")

    assert node.rules.is_revoked(identity())
    assert 1 == len(node.rules)


async def test_old_rules_are_forgotten() -> None:
    """After the longest life of a token a rule is gone, here and in Redis."""
    node, commands, clock = await loaded_node()
    await node.rules.revoke("jti", "j1")
    clock.now += 604_800 + 121
    await node.rules.revoke("jti", "j2")
    await node.rules.load()

    assert 1 == len(node.rules) == len(commands.sorted["sb:" + KEY])


async def test_strange_entries_and_notices_are_passed_over() -> None:
    """What cannot be read neither stops the reading nor revokes anything."""
    commands, clock = MemoryCommands(), Clock()
    commands.sorted["sb:" + KEY] = {b"nonsense": NOW, b'["moon","x",""]': NOW}
    node = Node(commands, clock)
    await node.rules.load()
    for data in (b"", b"{}", b'{"kind":"moon","value":"x"}'):
        node.bus.hear(Notice("revoke", "", data))

    assert node.rules.ready
    assert 0 == len(node.rules)


async def test_run_retries_reads_again_and_polls(autojump_clock: trio.testing.MockClock) -> None:
    """Redis coming back, a resync, and lost notices: each is made good by itself."""
    commands, clock = MemoryCommands(), Clock()
    commands.away = True
    node = Node(commands, clock)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.rules.run)
        await trio.sleep(5)
        assert not node.rules.ready
        commands.away = False
        await trio.sleep(1.5)
        assert node.rules.ready

        await commands.execute("ZADD", "sb:" + KEY, "GT", str(NOW), b'["jti","j1",""]')
        await trio.sleep(POLL_SECONDS + 1)
        assert node.rules.is_revoked(identity())

        old = str(NOW - 86_400)
        await commands.execute("ZADD", "sb:" + KEY, "GT", old, b'["jti","j2",""]')
        node.bus.resync[0]()
        await trio.testing.wait_all_tasks_blocked()
        assert 2 == len(node.rules)
        nursery.cancel_scope.cancel()


async def test_one_user_cannot_fill_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user makes so many rules, taking everything back is always possible, others go on."""
    monkeypatch.setattr(revocation, "MAX_OF_USER", 5)
    node, _, clock = await loaded_node()
    for n in range(5):
        await node.rules.revoke("device", f"d{n}", "mallory", by="mallory")
    with pytest.raises(SyncBridgeError) as refused:
        await node.rules.revoke("device", "d5", "mallory", by="mallory")
    assert ErrorCode.RATE_LIMITED is refused.value.code
    await node.rules.revoke("device", "d0", "mallory", by="mallory")
    await node.rules.revoke("user", "mallory", by="mallory")
    await node.rules.revoke("device", "phone", "alice", by="alice")
    await node.rules.revoke("user", "bob")
    assert node.rules.is_revoked(identity())

    clock.now += 604_800 + 121
    await node.rules.load()
    await node.rules.revoke("device", "d6", "mallory", by="mallory")
    assert 1 == len(node.rules)


async def test_users_leave_half_of_the_list_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """When users have filled their half, services still revoke; in a full list reuse still ends."""
    monkeypatch.setattr(revocation, "MAX_RULES", 10)
    node, _, _ = await loaded_node()
    for n in range(5):
        await node.rules.revoke("jti", f"j-{n}", by=f"user-{n}")
    with pytest.raises(SyncBridgeError, match="too many"):
        await node.rules.revoke("jti", "j-5", by="user-5")
    for n in range(5):
        await node.rules.revoke("user", f"user-{n}")
    with pytest.raises(SyncBridgeError, match="too many"):
        await node.rules.revoke("user", "user-9")

    await node.rules.revoke("family", "f1", must=True)
    assert node.rules.is_revoked(identity())


async def test_a_device_takes_what_it_has_used_with_it() -> None:
    """Its logins and tokens end wherever they are shown, on every node; others' stay."""
    commands, clock = MemoryCommands(), Clock()
    first, second = Node(commands, clock), Node(commands, clock)
    first.bus.others.append(second.bus)
    second.bus.others.append(first.bus)
    for node in (first, second):
        await node.rules.load()
    by_login = Identity("alice", Role.USER, "j1", NOW, NOW + 900, family="f1")
    by_token = Identity("alice", Role.USER, "j2", NOW, NOW + 900)
    others = Identity("bob", Role.USER, "j3", NOW, NOW + 900, family="f3")
    unused = Identity("alice", Role.USER, "j4", NOW, NOW + 900, family="f4")
    second.rules.used.note(by_login, "phone")
    second.rules.used.note(others, "phone")
    first.rules.used.note(by_token, "phone")

    await first.rules.revoke("device", "phone", "alice")

    assert second.rules.is_revoked(by_login, "renamed")
    assert first.rules.is_revoked(by_token, "renamed")
    assert not any(node.rules.is_revoked(others, "phone") for node in (first, second))
    assert not any(node.rules.is_revoked(unused, "tablet") for node in (first, second))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(second.rules.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert first.rules.is_revoked(by_login, "renamed")
    third = Node(commands, clock)
    await third.rules.load()
    assert third.rules.is_revoked(by_login)
    assert third.rules.is_revoked(by_token)


def test_what_devices_have_used_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest devices and tokens make room; a bound token needs no memory."""
    monkeypatch.setattr(used, "MOST_DEVICES", 3)
    monkeypatch.setattr(used, "MOST_TOKENS", 2)
    memory = used.UsedTokens()
    for n in range(5):
        for token in range(4):
            memory.note(Identity("u", Role.USER, f"j{token}", NOW, NOW + 1), f"d{n}")
    memory.note(identity(), "phone")

    assert [] == [*memory.of("d1", "u"), *memory.of("phone", "alice")]
    assert [("jti", "j2"), ("jti", "j3")] == list(memory.of("d4", "u")) == list(memory.of("d4"))
