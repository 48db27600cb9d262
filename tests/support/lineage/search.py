"""Explores every reachable world of the lineage model, breadth first.

From *each* of them the run is also brought to rest: everything arrives, everybody reconnects, and
where the bus has lost a message without a break, each session is compared once. There must hold:

    CURRENT  a client shows what Redis has;
    BASE     (always) no difference is given to a client that does not hold what it was made from;
    LOST     an acknowledged write that Redis does not have was reported lost to its maker;
    ONCE     no write is in Redis twice, and none that was reported lost is there;
    REST     the run comes to rest at all.
"""

from collections import deque
from typing import NamedTuple

from support.lineage.changes import Change
from support.lineage.world import CLIENTS, NODES, Broken, Budget, Rules, World, names

REST_STEPS = 400
Step = tuple[str, Change]


class Found(NamedTuple):
    """Result of a search: worlds, depth, and the shortest example of each broken invariant."""

    worlds: int
    depth: int
    broken: dict[str, str]


def explore(
    rules: Rules, budget: Budget, most: int, depth: int = 99, wanted: str | None = None
) -> Found:
    """Search up to `most` worlds and `depth` steps; ends early once `wanted` is broken."""
    start = World(left=budget)
    seen: dict[World, tuple[World, str] | None] = {start: None}
    queue = deque([(start, 0)])
    broken: dict[str, str] = {}
    reached = 0

    def note(error: Broken, world: World) -> None:
        broken.setdefault(error.invariant, f"{error}\n    {'; '.join(path(seen, world))}")

    while queue and wanted not in broken:
        world, reached = queue.popleft()
        try:
            check(rest(world, rules, compared=world.left.drops == budget.drops))
        except Broken as error:
            note(error, world)
        if reached == depth or len(seen) >= most:
            continue
        try:
            following = [(label, change.world()) for label, change in steps(world, rules)]
        except Broken as error:
            note(error, world)
            continue
        for label, after in following:
            if after not in seen:
                seen[after] = (world, label)
                queue.append((after, reached + 1))
    return Found(len(seen), reached, broken)


def path(seen: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    """How a world came about."""
    labels: list[str] = []
    while (before := seen[world]) is not None:
        world, label = before
        labels.insert(0, label)
    return labels


def steps(world: World, rules: Rules) -> list[Step]:
    """Every possible next step."""
    found: list[Step] = []
    for c in CLIENTS:
        found += client_steps(world, rules, c)
    for n in NODES:
        found += node_steps(world, rules, n)
    for length in range(len(world.redis.log) if world.left.rollbacks else 0):
        for lost in (False, True):
            change = Change(world, rules)
            change.spend("rollbacks")
            change.roll_back(length, answers_lost=lost)
            found.append((f"redis back to {length}" + ", answers lost" * lost, change))
    return found


def client_steps(world: World, rules: Rules, c: int) -> list[Step]:
    """A client joins somewhere, writes, or parts."""
    found: list[Step] = []
    client = world.clients[c]
    if client.node is None:
        for n in NODES:
            if not world.nodes[n].cut:
                change = Change(world, rules)
                change.client(c, node=n)
                change.hello(n, c)
                found.append((f"c{c} joins n{n}", change))
    elif client.joined:
        if world.left.writes and client.writing is None and not world.nodes[client.node].cut:
            change = Change(world, rules)
            change.spend("writes")
            change.think(c)
            found.append((f"c{c} writes", change))
        if world.left.partings:
            change = Change(world, rules)
            change.spend("partings")
            change.client(c, node=None, joined=False)
            found.append((f"c{c} parts", change))
    return found


def node_steps(world: World, rules: Rules, n: int) -> list[Step]:
    """A node hears something, gets a connection back, misses a message, or dies."""
    found: list[Step] = []
    node = world.nodes[n]

    def step(label: str) -> Change:
        change = Change(world, rules)
        found.append((f"n{n} {label}", change))
        return change

    if node.answers:
        step(f"answer {node.answers[0].kind}").arrive(n)
    elif node.cut:
        step("commands up").up(n)
    elif node.deaf:
        change = step("bus up")
        change.node(n, deaf=False, bus=())
        if rules.compare_on_bus:
            change.compare(n)
    if node.bus:
        change = step(f"hears {node.bus[0].write.name}")
        change.node(n, bus=node.bus[1:])
        change.take(n, node.bus[0])
        if world.left.drops:
            change = step(f"misses {node.bus[0].write.name}")
            change.spend("drops")
            change.node(n, bus=node.bus[1:])
    if world.left.deaths and (node.doc is not None or node.answers):
        change = step("dies")
        change.spend("deaths")
        change.die(n)
    return found


def rest(world: World, rules: Rules, *, compared: bool) -> World:
    """Everything arrives and everybody comes back; unless `compared`, sessions are compared."""
    world = world._replace(left=Budget(0, 0, 0, 0, 0))
    order = ("answer", "commands", "hears", "bus", "joins")
    for _ in range(REST_STEPS):
        found = steps(world, rules)
        if found:
            world = min(found, key=lambda step: order.index(step[0].split()[1]))[1].world()
        elif compared:
            return world
        else:
            compared, change = True, Change(world, rules)
            for n in NODES:
                change.compare(n, after_break=False)
            world = change.world()
    raise Broken("REST")


def check(world: World) -> None:
    """The invariants of a world at rest; raises Broken."""
    state = world.redis.state
    stored = {write.name for write in state}
    if len(stored) < len(state) or any(stored & client.lost for client in world.clients):
        raise Broken("ONCE", names(state))
    for c, client in enumerate(world.clients):
        if client.doc != state:
            raise Broken(
                "CURRENT", f"client {c} shows {names(client.doc)}, Redis has {names(state)}"
            )
        for write in client.acked:
            if write.name not in stored | client.lost:
                raise Broken("LOST", f"{write.name} of client {c} was acknowledged and is gone")
