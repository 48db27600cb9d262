"""The state policy's rules: which keys they name, who writes them, and what they leave as it is."""

import pytest

from syncbridge.errors import ErrorCode, SyncBridgeError
from syncbridge.identity import Identity, Role
from syncbridge.policy import MAX_REMEMBERED, Policy, Rule
from syncbridge.records.sessions import Apply
from syncbridge.resolve import Strategy


def holder(role: Role = Role.USER) -> Identity:
    return Identity("ann", role, "j", 0.0, 1.0)


def write(*sets: bytes, deletes: tuple[bytes, ...] = (), device: str = "tv") -> Apply:
    return Apply("s", "ann", device, list(sets), list(deletes))


def refused(policy: Policy, request: Apply, role: Role = Role.USER) -> SyncBridgeError | None:
    """The refusal of a write; None when it is let through."""
    try:
        policy.hold(holder(role), request)
    except SyncBridgeError as error:
        return error
    return None


def short(value: bytes) -> str:
    return "" if value == b"1" else "not one"


@pytest.mark.parametrize(
    ("pattern", "key", "fits"),
    [
        ("premium", "premium", True),
        ("premium", "premium2", False),
        ("premium", "Premium", False),
        ("ent.*", "ent.", True),
        ("ent.*", "ent.a\nb", True),
        ("ent.*", "an ent.x", False),
        ("a?c", "abc", True),
        ("a[0-9]", "a7", True),
        ("a[0-9]", "ab", False),
        ("*", "\u00e9", True),
        ("a.b", "axb", False),
    ],
)
def test_patterns_are_those_of_shells(pattern: str, key: str, fits: bool) -> None:
    """The whole key has to fit, in any script."""
    policy = Policy([Rule("r", (pattern,), "service")])

    assert fits == (policy.fit(key.encode()) is not None)


@pytest.mark.parametrize(
    ("writer", "allowed"),
    [
        ("user", {Role.USER, Role.SERVICE, Role.ADMIN}),
        ("service", {Role.SERVICE, Role.ADMIN}),
        ("admin", {Role.ADMIN}),
    ],
)
def test_each_role_includes_those_before(writer: str, allowed: set[Role]) -> None:
    """Sets and deletes are held to the same, and a refusal names key and rule."""
    policy = Policy([Rule("money", ("premium",), writer)])  # type: ignore[arg-type]
    for role in (Role.USER, Role.SERVICE, Role.ADMIN):
        for request in (write(b"a", b"1", b"premium", b"1"), write(deletes=(b"premium",))):
            error = refused(policy, request, role)
            assert (role in allowed) == (error is None)
            if error is not None:
                assert ErrorCode.FORBIDDEN is error.code
                assert {"key": "premium", "rule": "money"} == error.fields


@pytest.mark.parametrize(
    ("key", "device", "own"),
    [
        ("cursor/tv", "tv", True),
        ("cursor/tv", "phone", False),
        ("cursor/tv", "", False),
        ("cursor/tv", "t", False),
        ("cursor/tv", "tv/x", False),
        ("at/tv/x", "tv", True),
        ("at/tv/x/y", "tv", True),
        ("at/tv/x", "tv/x", False),
        ("at/a/b/x", "a/b", False),
    ],
)
def test_a_device_writes_what_names_it(key: str, device: str, own: bool) -> None:
    """`{device}` is the writing device and no part or extension of it; services write it too."""
    policy = Policy([Rule("mine", ("cursor/{device}", "at/{device}/*"), "device")])
    request = write(key.encode(), b"1", device=device)

    assert own == (refused(policy, request) is None)
    assert refused(policy, request, Role.SERVICE) is None


@pytest.mark.parametrize("pattern", ["cursor", "*{device}", "a{device}*", "{device}/{device}"])
def test_patterns_that_name_no_device_for_certain(pattern: str) -> None:
    """A rule of devices needs the device once, after plain text and before a plain character."""
    with pytest.raises(ValueError, match="rule 'mine'"):
        Policy([Rule("mine", (pattern,), "device")])


def test_the_first_rule_decides() -> None:
    """A later one is not looked at; a key without a rule is free."""
    policy = Policy([Rule("one", ("a.b",), "user"), Rule("two", ("a.*",), "admin")])

    assert refused(policy, write(b"a.b", b"1", b"free", b"1")) is None
    assert refused(policy, write(b"a.c", b"1")) is not None


def test_values_have_a_size_and_a_form() -> None:
    """Both hold for services as well; what only the store computes is refused."""
    policy = Policy(
        [Rule("small", ("s",), max_bytes=3), Rule("formed", ("f",), invalid=short)],
    )
    large = refused(policy, write(b"s", b"1234"), Role.ADMIN)
    formless = refused(policy, write(b"f", b"2"), Role.ADMIN)

    assert large is not None
    assert formless is not None
    assert (ErrorCode.TOO_LARGE, ErrorCode.INVALID_FIELD) == (large.code, formless.code)
    assert "not one" in formless.detail
    assert refused(policy, write(b"s", b"123", b"f", b"1")) is None
    for name in ("INCR", "APPEND"):
        with pytest.raises(SyncBridgeError, match="CAS or MERGE"):
            policy.hold(holder(), write(b"s", b"1"), name)
    policy.hold(holder(), write(b"f", b"2"), "MERGE")
    with pytest.raises(SyncBridgeError, match="not one"):
        policy.hold_value(b"f", b"2")


def test_keys_that_a_device_may_not_create_are_a_condition() -> None:
    """The store decides, in the write itself; services may create them."""
    policy = Policy([Rule("fixed", ("f.*",), create=False)])
    by_user, by_service = (write(b"a", b"1", b"f.1", b"1") for _ in range(2))
    policy.hold(holder(), by_user)
    policy.hold(holder(Role.SERVICE), by_service)

    assert ([b"f.1"], []) == (by_user.must_exist, by_service.must_exist)


def test_a_strategy_holds_when_all_keys_have_it() -> None:
    """Keys that differ, and keys without one, leave it to the device."""
    policy = Policy(
        [
            Rule("c", ("c*",), strategy=Strategy.CLIENT_WINS),
            Rule("s", ("s*",), strategy=Strategy.SERVER_WINS),
        ]
    )

    assert Strategy.CLIENT_WINS is policy.strategy([b"c1", b"c2"])
    assert policy.strategy([b"c1", b"s1"]) is None
    assert policy.strategy([b"c1", b"free"]) is None


def test_a_whole_state_leaves_what_its_writer_may_not_write() -> None:
    """Changed, made and left out: each protected key stays as it is there, and is named."""
    policy = Policy([Rule("money", ("p*",), "service"), Rule("fixed", ("f*",), create=False)])
    there = [b"p1", b"1", b"p2", b"2", b"p3", b"3", b"f1", b"1", b"a", b"1"]
    request = write(b"p1", b"9", b"p3", b"3", b"p4", b"4", b"f1", b"5", b"f2", b"6", b"b", b"7")
    request.replace = True

    kept = policy.spare(holder(), request, there)

    assert {b"p1", b"p2", b"p4", b"f2"} == set(kept)
    written = dict(zip(request.sets[::2], request.sets[1::2], strict=True))
    assert {b"p1": b"1", b"p2": b"2", b"p3": b"3", b"f1": b"5", b"b": b"7"} == written


def test_a_difference_loses_what_its_writer_may_not_write() -> None:
    """Of a resolution such sets and deletions are taken out; a service keeps all."""
    policy = Policy([Rule("money", ("p*",), "service")])
    there = [b"p1", b"1", b"p2", b"2"]
    request = write(b"p1", b"9", b"a", b"1", deletes=(b"p2", b"b"))
    whole = write(b"p1", b"9", b"a", b"1", deletes=(b"p2", b"b"))

    assert {b"p1", b"p2"} == set(policy.spare(holder(), request, there))
    assert ([b"a", b"1"], [b"b"]) == (request.sets, request.deletes)
    assert [] == policy.spare(holder(Role.SERVICE), whole, there)
    assert ([b"p1", b"9", b"a", b"1"], [b"p2", b"b"]) == (whole.sets, whole.deletes)


def test_what_is_remembered_is_bounded_and_hostile_keys_cost_little() -> None:
    """Ever new keys make no memory, and a key made for backtracking is judged at once."""
    policy = Policy([Rule("r", ("*a*a*a*a*a*a*b",), "service")])
    for n in range(2_000):  # with backtracking the first of them would take hours
        assert policy.fit(b"a" * 240 + b"%d" % n) is None

    for n in range(MAX_REMEMBERED + 10):
        policy.fit(b"%d" % n)
    assert len(policy._fits) <= MAX_REMEMBERED
