"""Whose places are whose: addresses have shares, users and those who stand for many have none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.limits import Limits
from syncbridge_server.gateway.admission import AdmissionLimits, UnauthenticatedConnections
from syncbridge_server.gateway.connection import Connection
from syncbridge_server.listener.capacity import Bounds, Capacity, Occupant
from syncbridge_server.listener.contract import ListenerConfig, Refusal
from syncbridge_server.listener.shares import (
    FORWARDING,
    MANY,
    Forwarding,
    Holder,
    Ranking,
    holder_name,
)
from syncbridge_server.proxies import TrustedProxies

ATTACKER, GUEST = "192.0.2.1", "192.0.2.2"


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("127.0.0.2", "127.0.0.2"),
        ("127.0.0.1", MANY),
        ("::ffff:127.0.0.1", MANY),
        ("::1", MANY),
        ("unix", MANY),
        ("", MANY),
    ],
)
def test_whose_share(client: str, name: str) -> None:
    """IPv6 counts by /64, IPv4 in IPv6 as IPv4; only 127.0.0.1, ::1 and unix peers are many."""
    assert name == holder_name(client)


def taken(capacity: Capacity, holder: str, count: int, waits: bool = True) -> list[Occupant]:
    """So many of a holder that have a place."""
    made = [Occupant(holder=holder) for _ in range(count)]
    for one in made:
        assert one.take(capacity)
        if waits:
            one.wait()
    return made


async def test_a_share_binds_only_under_pressure() -> None:
    """Below 3/4 of the whole an address takes what it wants; above, one of its own gives way."""
    capacity = Capacity("places", 64)
    first = taken(capacity, ATTACKER, 48)
    assert not any(one.evicted for one in first)

    more = taken(capacity, ATTACKER, 3)
    guests = taken(capacity, GUEST, 4)
    assert [True] * 3 + [False] * 45 == [one.evicted for one in first]
    assert not any(one.evicted for one in (*more, *guests))
    assert (52, 3) == (capacity.held, capacity.evicted)


async def test_who_has_its_share_and_works_on_all_of_it_is_refused() -> None:
    """The newcomer of another address, and of a known user, still finds the reserve."""
    capacity = Capacity("places", 64)
    taken(capacity, ATTACKER, 48, waits=False)

    assert not Occupant(holder=ATTACKER).take(capacity)
    assert Occupant(holder=GUEST).take(capacity)
    user = Occupant(holder=ATTACKER)
    user.belong("ann")
    assert user.take(capacity)
    assert (50, 1) == (capacity.held, capacity.refused)


async def test_the_oldest_of_the_largest_address_goes_first() -> None:
    """However long others have waited, those without a share among them."""
    capacity = Capacity("places", 64)
    old = taken(capacity, MANY, 20) + taken(capacity, GUEST, 2)
    large = taken(capacity, ATTACKER, 26)
    fill = [taken(capacity, f"192.0.2.{at}", 1)[0] for at in range(10, 26)]
    assert Occupant(holder="192.0.2.99").take(capacity)

    assert [large[0]] == [one for one in (*old, *large, *fill) if one.evicted]
    assert 64 == capacity.held


async def test_without_shares_the_oldest_of_all_goes_first() -> None:
    """As it was before there were shares; the reserve for others stands."""
    capacity = Capacity("places", 64)
    many = taken(capacity, MANY, 50)

    assert [True, True, False] == [one.evicted for one in many[:3]]
    assert 48 == capacity.held
    assert Occupant(holder=GUEST).take(capacity)


async def test_who_is_known_leaves_the_share_of_its_address() -> None:
    """Its place counts for its user, and gives way after all that are not known."""
    capacity = Capacity("places", 16)
    users = taken(capacity, ATTACKER, 12)
    for at, one in enumerate(users):
        one.belong(f"user {at % 2}")
    fresh = taken(capacity, ATTACKER, 1)[0]
    newer = taken(capacity, ATTACKER, 1)[0]
    assert [True, False] == [fresh.evicted, newer.evicted]
    assert not any(one.evicted for one in users)

    for at in range(3):
        taken(capacity, f"198.51.100.{at}", 1, waits=False)
    newer.work()
    assert Occupant(holder=GUEST).take(capacity)
    assert [users[0]] == [one for one in users if one.evicted]


async def test_a_proxy_that_is_not_trusted_stands_for_many(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Told once, with the setting. A trusted one has the shares of its clients."""
    proxies = TrustedProxies(("10.0.0.0/8",))
    bounds = Bounds(ListenerConfig(proxies=proxies))
    said = [(b"x-forwarded-for", b"198.51.100.7")]
    assert MANY == bounds.holder("10.0.0.1")
    assert "198.51.100.7" == bounds.requester(Occupant(), "10.0.0.1", said)
    assert ATTACKER == bounds.holder(ATTACKER)

    connection = Occupant(holder=ATTACKER)
    connection.take(bounds.connections)
    for _ in range(3):
        assert MANY == bounds.requester(connection, ATTACKER, said)
    assert (MANY, MANY) == (connection.holder, bounds.holder(ATTACKER))
    assert 1 == sum("SYNCBRIDGE_TRUSTED_PROXIES" in line for line in caplog.messages)


def test_the_memory_of_forwarding_addresses_is_bounded() -> None:
    """The oldest is forgotten."""
    forwarding = Forwarding()
    for at in range(FORWARDING + 1):
        assert forwarding.add(f"10.1.{at // 256}.{at % 256}")

    assert ["10.1.0.0", MANY] == [forwarding.holder(f"10.1.0.{at}") for at in (0, 1)]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans())))
def test_the_ranking_has_the_largest_at_hand(steps: list[tuple[int, int, bool]]) -> None:
    """After any steps the first holder is one of which most wait."""
    holders = [Holder[int](str(at), 1) for at in range(4)]
    ranking: Ranking[int] = Ranking()
    for at, occupant, comes in steps:
        if comes:
            ranking.add(holders[at], occupant)
        else:
            ranking.discard(holders[at], occupant)
        most = max(len(holder.waiting) for holder in holders)
        first = ranking.first()
        assert most == (len(first.waiting) if first is not None else 0)


def sockets(
    unauthenticated: UnauthenticatedConnections, client: str, count: int, start: int
) -> list[Connection]:
    made = [Connection(start + at, "node", client, 0) for at in range(count)]
    for one in made:
        unauthenticated.add(one)
    return made


def test_sockets_without_auth_give_way_by_address() -> None:
    """Only once 3/4 of the places are taken; a full server takes one of the largest address."""
    unauthenticated = UnauthenticatedConnections(share=4)
    admission = AdmissionLimits(Limits(connections=16, handshakes_per_second=0), unauthenticated)
    old = sockets(unauthenticated, GUEST, 2, start=1)
    large = sockets(unauthenticated, ATTACKER, 5, start=10)

    assert admission.admit(ATTACKER, 0.0, taken=11) is None
    assert large[0] is admission.admit(ATTACKER, 0.0, taken=12)
    assert admission.admit(GUEST, 0.0, taken=12) is None
    assert large[0] is admission.admit("127.0.0.1", 0.0, taken=16)
    for one in large:
        unauthenticated.discard(one)
    assert old[0] is admission.admit(ATTACKER, 0.0, taken=16)
    for one in old:
        unauthenticated.discard(one)
    full = admission.admit(ATTACKER, 0.0, taken=16)
    assert isinstance(full, Refusal)
    assert 503 == full.status


def test_handshakes_of_127_0_0_2_are_held_to_the_rate() -> None:
    """Of this machine only 127.0.0.1 and ::1 are not; IPv6 counts by /64."""
    admission = AdmissionLimits(
        Limits(handshakes_per_second=1, handshake_burst=1), UnauthenticatedConnections()
    )
    verdicts = {
        client: [admission.admit(address, 0.0, 0) is None for address in (client, again)]
        for client, again in (
            ("127.0.0.2", "127.0.0.2"),
            ("2001:db8::1", "2001:db8::2"),
            ("127.0.0.1", "127.0.0.1"),
        )
    }

    assert [[True, False], [True, False], [True, True]] == list(verdicts.values())


async def test_any_order_of_belonging_keeps_the_sums() -> None:
    """What is known, leaves and gives way, leaves nothing behind."""
    capacity = Capacity("places", 8)
    made = taken(capacity, ATTACKER, 4) + taken(capacity, MANY, 2)
    made[0].belong("ann")
    made[1].belong("ann")
    made[1].belong("bob")
    made[2].belong(MANY, known=False)
    for one in made:
        one.leave_all()

    assert (0, [], {}, {}) == (
        capacity.held,
        capacity.waiting,
        capacity._addresses,
        capacity._users,
    )
