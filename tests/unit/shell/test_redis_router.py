"""The router against a cluster in memory: order, truth and delivery, whatever comes when."""

import hiredis
import pytest

from support.fake_cluster import SEED, World, inversions, send_again_later
from syncbridge.errors import StoreTimeout
from syncbridge.slots import SLOTS
from syncbridge_server.redis.link.confirming import Confirmation
from syncbridge_server.redis.link.pipeline import Job, plain
from syncbridge_server.redis.link.router import Router
from syncbridge_server.redis.link.slot_map import SlotMap
from syncbridge_server.redis.link.urls import Address

STEPS = 3_000


@pytest.mark.parametrize("seed", range(12))
def test_order_and_truth_while_a_slot_moves(seed: int) -> None:
    """What was acknowledged is stored, once and in order; what was refused is not."""
    world = World(seed)
    world.run(STEPS)
    assert world.moves > 5
    for key in world.keys:
        done = [number for number, reply in world.answers[key] if isinstance(reply, int)]
        assert world.stored(key) == done == sorted(done)


@pytest.mark.parametrize("seed", range(12))
def test_truth_with_breaks(seed: int) -> None:
    """A break makes answers unknown; nothing acknowledged is missing, nothing refused is stored."""
    world = World(seed)
    world.run(STEPS, cuts=True)
    unknown = 0
    for key in world.keys:
        answers = world.answers[key]
        stored = world.stored(key)
        perhaps = {number for number, reply in answers if isinstance(reply, StoreTimeout)}
        done = {number for number, reply in answers if isinstance(reply, int)}
        assert done <= set(stored) <= done | perhaps
        assert len(stored) == len(set(stored))
        assert inversions(stored) == 0
        unknown += len(perhaps)
    assert unknown


@pytest.mark.parametrize("seed", range(4))
def test_jobs_are_delivered_in_order(seed: int) -> None:
    """Each once; those with a slot in common in the order of submission."""
    world = World(seed)
    world.run(STEPS, cuts=True)
    assert sorted(world.delivered) == list(range(world.submitted))
    for slot in ("{s}", "{t}"):
        keys = [key for key in world.keys if key.startswith(slot)]
        for key in keys:
            numbers = [number for number, _ in world.answers[key]]
            assert numbers == sorted(numbers)


def test_without_the_rule_of_lanes_the_order_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: what failed is sent again after the rest, as a pool of connections would."""
    send_again_later(monkeypatch)
    world = World(1)
    world.run(STEPS)
    assert sum(inversions(world.stored(key)) for key in world.keys) > 0


@pytest.mark.parametrize("seed", range(12))
def test_a_moving_slot_refuses_nobody_for_its_move(seed: int) -> None:
    """ASK and TRYAGAIN are never an answer: they are gone before a job's time is over."""
    world = World(seed)
    world.run(STEPS)
    answers = [str(reply) for key in world.keys for _, reply in world.answers[key]]
    assert [] == [text for text in answers if "refused: ASK" in text or "TRYAGAIN" in text]


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_what_replicas_must_have(seed: int, cuts: bool) -> None:
    """It lags, and has what is acknowledged; nobody has what is refused; the order is as before."""
    world = World(seed, replicas=1)
    world.run(STEPS, cuts=cuts)
    assert world.moves > 2
    unknown = acknowledged = 0
    for key in world.keys:
        answers = world.answers[key]
        stored = world.stored(key)
        perhaps = {number for number, reply in answers if isinstance(reply, StoreTimeout)}
        done = {number for number, reply in answers if isinstance(reply, int)}
        assert done <= world.safe
        assert done <= set(stored) <= done | perhaps
        assert inversions(stored) == 0
        unknown += len(perhaps)
        acknowledged += len(done)
    assert unknown
    assert acknowledged > 50


def test_without_waiting_replicas_lack_what_was_acknowledged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control: every answer to WAIT is taken for enough."""
    original = Confirmation._waited
    monkeypatch.setattr(Confirmation, "_waited", lambda one, reply: original(one, 1))
    world = World(1, replicas=1)
    world.run(STEPS)
    answers = [answer for key in world.keys for answer in world.answers[key]]
    assert {number for number, reply in answers if isinstance(reply, int)} - world.safe


def test_a_slot_that_nobody_is_said_to_serve_stays_with_its_server() -> None:
    """A map that is read while a replica takes over may have a hole; nothing is refused for it."""
    one, two, three = (Address("127.0.0.1", port) for port in (1, 2, 3))
    router = Router(list, 1.0)
    router.set_map(SlotMap([(0, 99, one), (100, SLOTS - 1, two)]), 0.0)
    router.set_map(SlotMap([(100, SLOTS - 1, two)]), 1.0)
    holed = router.map
    router.set_map(SlotMap([(0, 99, three), (100, SLOTS - 1, two)]), 2.0)

    assert holed is not None
    assert (False, [one, two], one) == (holed.whole, holed.primaries, holed.owners[99])
    assert router.map is not None
    assert (True, [three, two]) == (router.map.whole, router.map.primaries)


def test_what_is_late_when_it_is_sent_again_is_told_why_it_was_not_done() -> None:
    """Of Redis' refusal; not that it waited, which says nothing of the cause."""
    world = World(1)
    told: list[object] = []
    command = plain("RPUSH", "{s}:1", 1)
    world.router.submit(Job([command], 0, world.now + 1.0, told.extend), world.now)
    link = world.router.links[SEED]
    while link.queue or not link.sent:
        world.pass_time()
        world.write()
    world.router.received(link, [hiredis.ReplyError("CLUSTERDOWN Hash slot not served")], world.now)
    world.now += 0.5
    world.router.passed(world.now)
    assert link.queue

    world.router.expire(link, world.now + 1.0)
    world.pass_time()
    assert ["Redis: refused: CLUSTERDOWN"] == [str(reply) for reply in told]
