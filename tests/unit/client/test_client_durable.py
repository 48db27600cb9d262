"""The queue in a file against the model of the server: the program may end at any moment, answers
may be lost, updates refused, and the store may be lost, too. Each update is carried out once, or is
told as lost.
"""

import tempfile
from pathlib import Path
from typing import Any

import anyio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.client_model import Client
from syncbridge_client import OfflineStore, StorageError
from syncbridge_client.events import Lost
from syncbridge_client.operations import Edit

EXAMPLES = 120
"""With fewer a client that sends what is not in the file yet is not always found out."""
REFUSALS = st.sampled_from(["store_unavailable", "rate_limited", "overloaded"])
FEW = st.integers(0, 4)
SOME = st.integers(0, 8)
MOSTLY = st.sampled_from([True, True, True, False])


async def flush(store: OfflineStore) -> None:
    """Let the store write what waits."""
    async with anyio.create_task_group() as group:
        group.start_soon(store.run)
        assert await store.stored()
        group.cancel_scope.cancel()


class Program:
    """One run of the program: a client and its file."""

    def __init__(self, path: Path, before: "Program | None") -> None:
        self.client = Client(sequenced=True, window=4)
        if before is not None:
            self.client.server = before.client.server
            self.client._ids = before.client._ids
            self.client.now = before.client.now
            before.client.lose()
        self.store = OfflineStore(path)
        self.told = 0  # as lost, so that the file has it: what it has not is told again
        anyio.run(self.store.open, self.client.dialogue, failed, nothing, backend="trio")

    @property
    def queue(self) -> Any:
        return self.client.replica.queue

    def flush(self) -> None:
        anyio.run(flush, self.store, backend="trio")
        self.told = self.lost

    def kill(self) -> None:
        """Nothing is written any more."""
        self.store._database.close()

    @property
    def lost(self) -> int:
        return sum(event.count for event in self.client.sink.events if isinstance(event, Lost))


def failed(error: StorageError) -> None:
    raise error


def nothing() -> None:
    """Nobody has to be woken."""


class DurableMachine(RuleBasedStateMachine):
    """One list, to which each update adds its number."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "phone.db"
        self.made = self.gone = self.lost = self.lineages = 0

    @initialize()
    def start(self) -> None:
        self.program = Program(self.path, None)

    @property
    def client(self) -> Client:
        return self.program.client

    @property
    def server(self) -> Any:
        return self.client.server

    @rule(times=st.integers(1, 3), turns=st.sampled_from([0, 0, 12, 30]))
    def append(self, times: int, turns: int) -> None:
        for _ in range(times):
            self.client.dialogue.submit({"items": Edit("APPEND", self.made)})
            self.made += 1
        self.live(turns)

    @rule()
    def flush(self) -> None:
        self.program.flush()

    @rule(read=FEW, back=MOSTLY)
    def kill_9(self, read: int, back: bool) -> None:
        """What was sent may arrive still; what is in no file was not sent, and is gone."""
        for _ in range(min(read, len(self.server.inbox))):
            self.server.read()
        self.lost += self.program.told
        unsent = {p.id for p in self.program.queue if not p.sent}
        self.program.kill()
        self.program = Program(self.path, self.program)
        self.gone += len(unsent - {p.id for p in self.program.queue})
        if back:
            self.connect(True)

    @precondition(lambda self: not self.client.connected)
    @rule(joined=MOSTLY)
    def connect(self, joined: bool) -> None:
        """Mostly with the answer to AUTH, as little happens in a history without it."""
        self.client.connect()
        while joined and self.server.inbox:
            self.server.read()
        while joined and self.server.outbox:
            self.client.deliver()

    @precondition(lambda self: self.client.connected)
    @rule(read=FEW)
    def lose(self, read: int) -> None:
        """Some of what was sent arrives, none of the answers does."""
        for _ in range(min(read, len(self.server.inbox))):
            self.server.read()
        self.client.lose()

    @rule(send=SOME, read=SOME, deliver=SOME)
    def flow(self, send: int, read: int, deliver: int) -> None:
        for _ in range(send if self.client.connected else 0):
            self.client.send()
        for _ in range(min(read, len(self.server.inbox))):
            self.server.read()
        for _ in range(min(deliver, len(self.server.outbox))):
            self.client.deliver()

    def live(self, turns: int) -> None:
        """What goes on between the faults; without it little is acknowledged and then reopened."""
        for turn in range(turns):
            if turn % 4 == 0:
                self.program.flush()
            self.client._step()

    @rule(seconds=st.sampled_from([0.01, 1.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.client.now += seconds

    @rule(code=REFUSALS)
    def refuse(self, code: str) -> None:
        self.server.refuse_next = code

    @rule()
    def conflate(self) -> None:
        self.server.commit({"other": Edit("INCR", 1)})
        self.server.conflate()

    @precondition(lambda self: self.lineages < 1)
    @rule()
    def lose_the_store(self) -> None:
        self.lineages += 1
        self.server.new_lineage()

    @invariant()
    def nothing_is_doubled_or_out_of_order(self) -> None:
        items = self.server.state.get("items", [])

        assert items == sorted(set(items))

    def teardown(self) -> None:
        self.server.refuse_next = ""
        self.program.flush()
        for _ in range(50):
            self.program.flush()
            self.client.settle_what_is_safe()
            if not len(self.program.queue):
                break
        self.lost += self.program.lost
        items = self.server.state.get("items", [])
        view = self.client.replica.view.get("items", [])
        self.program.kill()
        self.folder.cleanup()

        assert items == sorted(set(items)) == view
        assert self.made == len(items) + self.gone + self.lost
        assert [] == [error for _, error in self.client.sink.finishes if error is not None]


def test_any_history_of_programs_loses_and_doubles_nothing() -> None:
    """However often the program is killed: carried out once, told as lost, or never in the file."""
    case = DurableMachine.TestCase
    case.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
    case().runTest()
