"""What Redis, the nodes and the clients do in one step of the lineage model."""

from typing import Any

from support.lineage.world import (
    CLIENTS,
    NODES,
    Answer,
    Broken,
    Client,
    Commit,
    Naming,
    Node,
    Rules,
    State,
    World,
    Write,
    names,
)


class Change:
    """One step of a world, mutable until done; `world` is the result."""

    def __init__(self, world: World, rules: Rules) -> None:
        self.rules = rules
        self.redis, self.left = world.redis, world.left
        self.nodes, self.clients = list(world.nodes), list(world.clients)

    def world(self) -> World:
        """The world after the step."""
        return World(self.redis, tuple(self.nodes), tuple(self.clients), self.left)

    def spend(self, what: str) -> None:
        """Take one from the budget."""
        self.left = self.left._replace(**{what: getattr(self.left, what) - 1})

    def node(self, n: int, **new: Any) -> None:
        """Change a node."""
        self.nodes[n] = self.nodes[n]._replace(**new)

    def client(self, c: int, **new: Any) -> None:
        """Change a client."""
        self.clients[c] = self.clients[c]._replace(**new)

    def here(self, n: int) -> list[int]:
        """Clients that have joined at a node."""
        return [c for c in CLIENTS if self.clients[c].node == n and self.clients[c].joined]

    # Places in a history

    def same(self, a: State, b: State) -> bool:
        """Whether two states are the same place, by their names."""
        if self.rules.naming is Naming.CHAIN:
            return a == b
        if self.rules.naming is Naming.NONCE:
            return (len(a), a and a[-1].nonce) == (len(b), b and b[-1].nonce)
        return (a and a[0].name, len(a)) == (b and b[0].name, len(b))

    def verified(self, doc: State) -> bool:
        """Whether Redis knows the difference since a place."""
        now = self.redis.state
        fits = len(doc) <= len(now) and self.same(now[: len(doc)], doc)
        return fits and (doc != () or not self.rules.format_1)

    # Redis

    def answer(self, n: int, answer: Answer) -> None:
        """Put an answer on a node's command connection."""
        self.node(n, answers=(*self.nodes[n].answers, answer))

    def apply(self, n: int, c: int, write: Write) -> None:
        """The script of a write: applied if its number is the next, and published."""
        if self.nodes[n].cut:
            return  # it is sent when the connection is up
        state = self.redis.state
        last = last_of(c, state)
        if write.seq <= last:
            self.answer(n, Answer("duplicate", state, c, write))
        elif write.seq > last + 1 and self.rules.gaps:
            self.answer(n, Answer("gap", state, c, write))
        else:
            self.redis = self.redis._replace(log=(*self.redis.log, write))
            for m in NODES:
                if m != n and m in self.redis.log and not self.nodes[m].deaf:
                    self.node(m, bus=(*self.nodes[m].bus, Commit(state, write)))
            self.answer(n, Answer("done", state, c, write))

    def register(self, n: int) -> None:
        """Register a node that Redis does not have."""
        if n not in self.redis.log:
            self.redis = self.redis._replace(log=(*self.redis.log, n))

    def roll_back(self, length: int, *, answers_lost: bool) -> None:
        """Redis loses the end of its log, and all connections."""
        self.redis = self.redis._replace(log=self.redis.log[:length])
        for n in NODES:
            kept = () if answers_lost else self.nodes[n].answers
            self.node(n, cut=True, deaf=True, answers=kept)

    # What a node asks

    def hello(self, n: int, c: int) -> None:
        """A client asks to join."""
        if self.nodes[n].cut:
            self.client(c, node=None)
            return
        self.register(n)
        known = self.verified(self.clients[c].doc)
        self.answer(n, Answer("hello", self.redis.state, c, known=known))

    def mend(self, n: int) -> None:
        """Read what changed since the replica."""
        node = self.nodes[n]
        if node.doc is not None and not node.reading and not node.cut:
            self.node(n, reading=True)
            known = self.verified(node.doc)
            self.answer(n, Answer("read", self.redis.state, known=known, base=node.doc))

    def compare(self, n: int, *, after_break: bool = True) -> None:
        """Ask where the session is; after a break also how far its writers have come."""
        if self.nodes[n].doc is not None and not self.nodes[n].cut:
            self.register(n)
            self.answer(n, Answer("at", self.redis.state, after_break=after_break))

    def up(self, n: int) -> None:
        """The commands are back; what had no answer is sent again as it was."""
        held = () if self.nodes[n].doc is None else self.nodes[n].held
        self.node(n, cut=False, reading=False, held=held)
        for c in CLIENTS:
            client = self.clients[c]
            if client.node == n and not client.joined:
                self.client(c, node=None)
            elif client.node == n and client.writing is not None:
                self.apply(n, c, client.writing)
        self.compare(n)

    def die(self, n: int) -> None:
        """A node is killed; its clients are parted from it."""
        self.nodes[n] = Node()
        for c in CLIENTS:
            if self.clients[c].node == n:
                self.client(c, node=None, joined=False)

    # Commits

    def take(self, n: int, commit: Commit) -> None:
        """A commit, from the node's own answers or from the bus (rules 1 and 2)."""
        node = self.nodes[n]
        if node.doc is None:
            if any(client.node == n for client in self.clients):  # somebody is joining
                self.node(n, held=(*node.held, commit))
        elif self.rules.format_1:
            self._take_by_number(n, node.doc, commit)
        elif node.reading and self.rules.hold:
            self.node(n, held=(*node.held, commit))
        elif self.same(commit.base, node.doc):
            self.forward(n, (*node.doc, commit.write), commit.base)
        elif not self.same(commit.after, node.doc):
            self.mend(n)

    def _take_by_number(self, n: int, doc: State, commit: Commit) -> None:
        other_epoch = bool(doc) and doc[0] != commit.after[0]
        if len(commit.base) == len(doc) and not other_epoch:
            self.forward(n, (*doc, commit.write), commit.base)
        elif other_epoch or len(commit.base) > len(doc):
            self.mend(n)

    def forward(self, n: int, doc: State, base: State) -> None:
        """The replica and its clients are given one difference, made from `base`."""
        self.node(n, doc=doc)
        for c in self.here(n):
            self.difference(c, base, doc)

    def release(self, n: int) -> None:
        """What was held is offered, in order."""
        held = self.nodes[n].held
        self.node(n, held=())
        for commit in held:
            self.take(n, commit)

    # Answers

    def arrive(self, n: int) -> None:
        """The next answer of the command connection."""
        answer = self.nodes[n].answers[0]
        self.node(n, answers=self.nodes[n].answers[1:])
        if answer.kind in ("done", "duplicate"):
            self._written(n, answer)
        elif answer.kind == "gap":
            self._gap(n, answer)
        elif answer.kind == "at":
            self._compared(n, answer)
        elif answer.kind == "read":
            self._read(n, answer)
        else:
            self._welcome(n, answer)

    def _written(self, n: int, answer: Answer) -> None:
        assert answer.write is not None
        if answer.kind == "done":
            self.take(n, Commit(answer.state, answer.write))
        client = self.clients[answer.client]
        if waits_for(client, n, answer.write):
            self.client(answer.client, writing=None, acked=(*client.acked, client.writing))

    def _gap(self, n: int, answer: Answer) -> None:
        if waits_for(self.clients[answer.client], n, answer.write):
            self.reckon(answer.client, answer.state, gap=True)
            self.send(n, answer.client)

    def _compared(self, n: int, answer: Answer) -> None:
        node = self.nodes[n]
        if node.doc is not None and not self.same(answer.state, node.doc):
            self.mend(n)
        elif not node.reading:
            self.release(n)
        if answer.after_break and self.rules.reckon_after_break:
            for c in self.here(n):
                self.reckon(c, answer.state)

    def _read(self, n: int, answer: Answer) -> None:
        """A read has come: one difference, or the replica is replaced (rule 3)."""
        self.node(n, reading=False)
        doc, state = self.nodes[n].doc, answer.state
        assert doc is not None
        older = self.rules.format_1 and len(state) <= len(doc)
        other_epoch = (state and state[0].name) != (doc and doc[0].name)
        if answer.known and not older and (self.rules.format_1 or self.same(answer.base, doc)):
            self.forward(n, doc + state[len(doc) :], state[: len(doc)])
        elif not older or (not answer.known and other_epoch):
            self.node(n, doc=state)
            for c in self.here(n):
                self.client(c, doc=state)
                self.reckon(c, state)
        self.release(n)

    def _welcome(self, n: int, answer: Answer) -> None:
        """A newcomer enters when its answer is the replica's place (rule 4)."""
        c, state = answer.client, answer.state
        if self.clients[c].node != n or self.clients[c].joined:
            return
        if self.nodes[n].doc is None:
            self.node(n, doc=state)
            self.release(n)
        doc, mine = self.nodes[n].doc, self.clients[c].doc
        assert doc is not None
        fits = self.same(state, doc)
        if fits and answer.known:
            self.difference(c, state[: len(mine)], state)
        elif self.rules.format_1:
            self._welcome_by_number(n, c, state, doc)
        elif not fits:  # first the replica is mended, then the newcomer asks again
            self.mend(n)
            self.hello(n, c)
            return
        self.client(c, joined=True, doc=doc)
        self.reckon(c, state)
        if self.clients[c].writing is not None:
            self.send(n, c)

    def _welcome_by_number(self, n: int, c: int, state: State, doc: State) -> None:
        mine = self.clients[c].doc
        if len(state) > len(doc) or (state and state[0].name) != (doc and doc[0].name):
            self.mend(n)
        if mine and len(mine) <= len(doc) and mine[0] == doc[0]:
            self.difference(c, doc[: len(mine)], doc)

    # Clients

    def think(self, c: int) -> None:
        """A client makes its next write and sends it."""
        client = self.clients[c]
        assert client.node is not None
        count, seq = client.written + 1, client.seq + 1
        write = Write(f"{'ab'[c]}{count}", c, seq, 0)
        self.client(c, writing=write, seq=seq, written=count)
        self.send(client.node, c)

    def send(self, n: int, c: int) -> None:
        """A client's open write goes out by its node, under a new random number."""
        write = self.clients[c].writing
        if write is None:
            return
        self.redis = self.redis._replace(nonce=self.redis.nonce + 1)
        write = write._replace(nonce=self.redis.nonce)
        self.client(c, writing=write)
        self.apply(n, c, write)

    def difference(self, c: int, base: State, after: State) -> None:
        """Send a client what changed since `base`, which must be its state."""
        if self.clients[c].doc != base:
            held = names(self.clients[c].doc)
            raise Broken(
                "BASE", f"client {c} holds {held} and is given changes since {names(base)}"
            )
        self.client(c, doc=after)

    def reckon(self, c: int, state: State, *, gap: bool = False) -> None:
        """A client learns the last of its writes that the store has; later ones are lost."""
        if not self.rules.reckon and not gap:
            return
        client, last = self.clients[c], last_of(c, state)
        gone = {write.name for write in client.acked if write.seq > last}
        writing = client.writing
        if gone or (writing is not None and writing.seq > last + 1):
            writing = writing and writing._replace(seq=last + 1)
            kept = tuple(write for write in client.acked if write.seq <= last)
            seq = last + (writing is not None)
            self.client(c, lost=client.lost | gone, acked=kept, writing=writing, seq=seq)


def last_of(maker: int, state: State) -> int:
    """The last sequence number of a client in a state."""
    return max((write.seq for write in state if write.maker == maker), default=0)


def waits_for(client: Client, n: int, write: Write | None) -> bool:
    """Whether a client at this node waits for the answer to a write."""
    if client.node != n or client.writing is None or write is None:
        return False
    return client.writing.name == write.name
