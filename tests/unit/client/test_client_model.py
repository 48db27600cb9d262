"""The client against a small model of the server: whatever is lost, repeated or late, both end up
with the same state, and every update was carried out once.
"""

import os
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from support.client_model import Client
from syncbridge_client.conflicts import Policy
from syncbridge_client.events import Conflict, Lost
from syncbridge_client.operations import Edit
from syncbridge_client.values import MISSING, same

KEYS = st.sampled_from("abc")
VALUES = st.one_of(st.integers(0, 3), st.booleans(), st.none(), st.just([1]))
EXAMPLES = int(os.environ.get("SYNCBRIDGE_TEST_MODEL_EXAMPLES", "100"))
ROLLBACKS = 3
"""Times that the store goes back in one history."""
REFUSALS = st.sampled_from(["store_unavailable", "rate_limited", "overloaded"])


def edits_of(changes: dict[str, Any], deleted: set[str]) -> dict[str, Edit]:
    edits = {key: Edit("SET", value) for key, value in changes.items()}
    return edits | {key: Edit("DELETE") for key in deleted - changes.keys()}


EDITS = st.builds(
    edits_of, st.dictionaries(KEYS, VALUES, max_size=2), st.sets(KEYS, max_size=1)
).filter(bool)


class ClientMachine(RuleBasedStateMachine):
    """Any interleaving of own updates, others' commits, answers, losses and reconnects."""

    policy: Policy | None = None
    sequenced = False

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(self.policy, sequenced=self.sequenced, window=4)
        self.server = self.client.server
        self.submitted = 0
        self.counted = 0
        self.items: list[int] = []
        self.lineages = 0
        self.others = 0
        self.place = ("", 0)
        self.seen: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {}

    @initialize()
    def start(self) -> None:
        self.client.connect()
        self.server.read()
        self.client.deliver()

    def submit(self, edits: dict[str, Edit]) -> None:
        known = {pending.id for pending in self.client.replica.queue}
        copies = {key: Edit(edit.operation, edit.value) for key, edit in edits.items()}
        replica = self.client.replica
        seen = replica.version, dict(replica.view), dict(replica.server)
        pending = self.client.dialogue.submit(copies)
        # One that was not sent takes the value of a later one: it is one update.
        self.submitted += pending.id not in known
        if pending.guarded:
            self.seen.setdefault(pending.id, seen)

    @rule(edits=EDITS)
    def write(self, edits: dict[str, Edit]) -> None:
        self.submit(edits)

    @rule()
    def count(self) -> None:
        self.counted += 1
        self.submit({"count": Edit("INCR", 1)})

    @rule()
    def append(self) -> None:
        self.items.append(len(self.items))
        self.submit({"items": Edit("APPEND", self.items[-1])})

    @rule(edits=EDITS)
    def somebody_else_writes(self, edits: dict[str, Edit]) -> None:
        """With a policy every value is a new one, so that it is clear whose a value is."""
        for edit in edits.values():
            if self.policy is not None and edit.value is not MISSING:
                self.others += 1
                edit.value = f"other {self.others}"
        self.server.commit(dict(edits))

    @precondition(lambda self: not self.client.connected)
    @rule()
    def connect(self) -> None:
        self.client.connect()

    @precondition(lambda self: self.client.connected)
    @rule(read=st.integers(0, 3))
    def lose(self, read: int) -> None:
        """Some of what was sent arrives, none of the answers does."""
        for _ in range(min(read, len(self.server.inbox))):
            self.server.read()
        self.client.lose()

    @precondition(lambda self: self.client.connected)
    @rule(send=st.integers(0, 4), read=st.integers(0, 4), deliver=st.integers(0, 4))
    def flow(self, send: int, read: int, deliver: int) -> None:
        """Messages move on, as many as there are up to the given numbers."""
        for _ in range(send):
            self.client.send()
        for _ in range(min(read, len(self.server.inbox))):
            self.server.read()
        for _ in range(min(deliver, len(self.server.outbox))):
            self.client.deliver()

    @precondition(lambda self: self.client.dialogue.ready)
    @rule(first=VALUES, second=VALUES)
    def own_update_is_answered_late(self, first: Any, second: Any) -> None:
        """Ours arrives, somebody else writes the same key, and only then do we hear of it."""
        self.submit({"a": Edit("SET", first)})
        self.client.send()
        while self.server.inbox:
            self.server.read()
        self.somebody_else_writes({"a": Edit("SET", second)})

    @rule(seconds=st.sampled_from([0.01, 1.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.client.now += seconds

    @rule(code=REFUSALS)
    def refuse(self, code: str) -> None:
        self.server.refuse_next = code

    @rule()
    def conflate(self) -> None:
        self.server.conflate()

    @rule()
    def lose_update(self) -> None:
        self.server.lose_update()

    @rule()
    def repeat_update(self) -> None:
        self.server.repeat_update()

    @precondition(lambda self: self.lineages < ROLLBACKS)
    @rule()
    def new_lineage(self) -> None:
        """The store loses the session, whatever is under way."""
        self.lineages += 1
        self.server.new_lineage()

    @rule()
    def save(self) -> None:
        self.server.save()

    @precondition(lambda self: self.lineages < ROLLBACKS and self.server.can_roll_back)
    @rule()
    def roll_back(self) -> None:
        """The store comes back as it was, whatever is under way."""
        self.lineages += 1
        self.server.roll_back()

    @rule()
    def beat(self) -> None:
        self.client.dialogue.beat()

    @invariant()
    def view_is_the_server_with_our_updates_on_top(self) -> None:
        replica = self.client.replica
        expected = dict(replica.server)
        for pending in replica.queue:
            for key, edit in pending.edits.items():
                value = edit.on(expected.get(key, MISSING))
                expected.pop(key, None)
                if value is not MISSING:
                    expected[key] = value

        assert replica.view == expected
        assert self.client.sink.copy == expected

    @invariant()
    def versions_only_grow(self) -> None:
        place = (self.client.replica.epoch, self.client.replica.version)

        assert self.lineages or place[0] != self.place[0] or place[1] >= self.place[1]
        self.place = place

    @invariant()
    def nothing_is_sent_while_an_older_update_of_the_key_is_open(self) -> None:
        """A server that takes a stream in order refuses what is behind one that it refused."""
        for key in "abc":
            flying = [p.in_flight for p in self.client.replica.queue.touching(key)]

            assert flying.count(True) <= 1 or self.client.replica.queue.sequenced

    @invariant()
    def numbers_are_given_in_order(self) -> None:
        queue = self.client.replica.queue
        numbers = [p.seq for p in queue if p.seq and p.ack_version is None]

        assert numbers == sorted(set(numbers))

    @invariant()
    def server_wins_means_that_nothing_unseen_is_overwritten(self) -> None:
        """What we wrote replaced only what this device had seen when it was written, with its own
        updates or without.
        """
        if self.policy == "server_wins" and not self.lineages:
            late = [
                (update_id, key, version, value)
                for update_id, (seen, *states) in self.seen.items()
                for key, (version, value) in self.server.replaced.get(update_id, {}).items()
                if version > seen
                and not any(same(value, state.get(key, MISSING)) for state in states)
            ]

            assert late == []

    def teardown(self) -> None:
        self.server.refuse_next = ""
        self.client.settle()
        self.client.dialogue.beat()
        self.client.settle()
        client = self.client

        assert client.replica.view == self.server.state
        assert client.replica.version == self.server.version
        assert self.submitted == len(client.sink.finishes)
        assert self.submitted == len({pending.id for pending, _ in client.sink.finishes})
        assert [error for _, error in client.sink.finishes if error is not None] == []
        # In a new lineage nobody can tell whose an older value was.
        if self.policy is not None and not self.lineages:
            conflicts = [e for e in client.sink.events if isinstance(e, Conflict)]
            theirs = [
                (r.theirs, self.seen[e.update_id][1].get(r.key, MISSING))
                for e in conflicts
                for r in e.resolutions
                if r.theirs is not MISSING
            ]
            # By ids alone, an update that was done, whose answer was lost and whose repetition was
            # refused, is taken for somebody else's: the refusal does not say that it had been done.
            if self.sequenced:
                assert [t for t, _ in theirs if "other" not in str(t)] == []
            assert [t for t, seen in theirs if same(t, seen)] == []
        lost = [u for e in client.sink.events if isinstance(e, Lost) for u in e.updates]
        if self.sequenced or not self.lineages:
            gone = [u.changes["items"] for u in lost if u.operation == "APPEND"]
            counts = [u for u in lost if u.operation == "INCR"]
            assert self.server.state.get("count", 0) + len(counts) == self.counted
            kept = [item for item in self.items if item not in gone]
            assert self.server.state.get("items", []) == kept


def machine(chosen: Policy | None, streams: bool) -> type[ClientMachine]:
    class WithPolicy(ClientMachine):
        policy = staticmethod(chosen) if callable(chosen) else chosen
        sequenced = streams

    return WithPolicy


def theirs_unless_gone(key: str, mine: Any, theirs: Any) -> Any:
    return mine if theirs is MISSING else theirs


@pytest.mark.parametrize(
    "policy",
    [None, "server_wins", "client_wins", theirs_unless_gone],
    ids=["none", "server_wins", "client_wins", "theirs_unless_gone"],
)
@pytest.mark.parametrize("streams", [False, True], ids=["ids", "streams"])
def test_any_history_converges(policy: Policy | None, streams: bool) -> None:
    """Same state and version on both sides, each update done once and reported once; what the
    server has lost is told.
    """
    case = machine(policy, streams).TestCase
    case.settings = settings(max_examples=EXAMPLES, stateful_step_count=50, deadline=None)
    case().runTest()


def guarded_client() -> Client:
    """Connected; of a key that somebody else has changed meanwhile, theirs stays."""
    client = Client("server_wins")
    client.connect()
    client.settle()
    return client


def written_in_vain(client: Client) -> list[Conflict]:
    """The conflicts after everything has come through."""
    client.settle()
    return [event for event in client.sink.events if isinstance(event, Conflict)]


@pytest.mark.parametrize("ours", [Edit("SET", None), Edit("SET", 1), Edit("SET", [1])], ids=repr)
@pytest.mark.parametrize("device", ["me", "other"])
def test_difference_that_names_a_seen_value_again_is_no_conflict(device: str, ours: Edit) -> None:
    """A key was written and seen, by whomever, before we write it. Then a difference comes that
    begins earlier; it names the key although nothing has happened to it.
    """
    client = guarded_client()
    if device == "me":
        client.dialogue.submit({"b": ours})
        client.send()
        client.server.read()
    else:
        client.server.commit({"b": ours})
    client.server.repeat_update()
    client.deliver()
    client.server.commit({"a": Edit("SET", 0)})
    client.server.conflate()
    client.dialogue.submit({"b": Edit("SET", 2)})

    assert {"a": 0, "b": ours.value} == client.server.outbox[0]["payload"]["changes"]
    assert [] == written_in_vain(client)
    assert {"a": 0, "b": 2} == client.replica.view == client.server.state


def test_difference_that_names_a_seen_deletion_again_is_no_conflict() -> None:
    """As above, with a key that is gone."""
    client = guarded_client()
    client.server.commit({"b": Edit("SET", 1)})
    client.deliver()
    client.dialogue.submit({"b": Edit("DELETE")})
    client.send()
    client.server.read()
    client.server.repeat_update()
    client.deliver()
    client.server.commit({"a": Edit("SET", 0)})
    client.server.conflate()
    client.dialogue.submit({"b": Edit("SET", 2)})

    assert ["b"] == client.server.outbox[0]["payload"]["deleted_keys"]
    assert [] == written_in_vain(client)
    assert {"a": 0, "b": 2} == client.server.state


def test_difference_with_news_is_a_conflict() -> None:
    """What somebody else has really changed stays, however the difference overlaps."""
    client = guarded_client()
    client.server.commit({"b": Edit("SET", 1)})
    client.server.repeat_update()
    client.deliver()
    client.server.commit({"b": Edit("SET", 3)})
    client.server.conflate()
    client.dialogue.submit({"b": Edit("SET", 2)})

    [conflict] = written_in_vain(client)
    assert (("b", 2, 3, 3, True),) == conflict.resolutions
    assert {"b": 3} == client.replica.view == client.server.state


def test_own_write_behind_a_gap_is_no_conflict() -> None:
    """Ours is acknowledged while an older commit is missing. The next update of the key waits for
    the difference, and what is behind it too: the version that we have is older than our own write.
    """
    client = guarded_client()
    client.server.commit({"c": Edit("SET", 0)})
    client.server.lose_update()
    client.dialogue.submit({"a": Edit("SET", 1)})
    client.send()
    client.server.read()
    client.deliver()
    client.dialogue.submit({"a": Edit("SET", 2)})
    client.dialogue.submit({"b": Edit("SET", 2)})

    assert [True, False] == [client.send() for _ in range(2)]
    assert [] == written_in_vain(client)
    assert {"a": 2, "b": 2, "c": 0} == client.replica.view == client.server.state


def test_an_answer_left_out_and_a_lost_store_end_no_update() -> None:
    """The acknowledgement of an update is folded into a difference, the update is asked again, and
    the store is lost before that is read: the refusal is one of two answers, the other never comes.
    """
    client = Client(sequenced=True)
    client.connect()
    for _ in range(2):
        client.settle()
        client.dialogue.submit({"n": Edit("INCR", 1)})
    client.send()
    client.server.read()
    client.server.commit({"x": Edit("SET", 1)})
    client.server.conflate()
    client.deliver()
    client.send()
    client.server.new_lineage()
    client.settle()

    [lost] = [event for event in client.sink.events if isinstance(event, Lost)]
    assert (1, {"n": 1}) == (lost.count, client.server.state)
    assert [None, None] == [error for _, error in client.sink.finishes]


def test_a_connection_whose_answers_stay_out_twice_is_given_up() -> None:
    """Once is asked again on the same connection, twice is for a new one."""
    client = guarded_client()
    client.dialogue.submit({"a": Edit("SET", 1)})
    asked = []
    for _ in range(3):
        client.send()
        asked.append((client.connected, len(client.server.inbox)))
        client.now += 11

    assert [(True, 1), (True, 2), (False, 0)] == asked


def test_what_a_second_copy_carries_out_anew_is_not_lost() -> None:
    """The answer is late, so the update is asked again; in between the store loses the session.
    The first answer acknowledges it, the state that follows does not have it, the second copy does
    it anew: only a new connection tells whether it is lost.
    """
    client = Client(sequenced=True)
    client.connect()
    client.settle()
    client.dialogue.submit({"n": Edit("INCR", 1)})
    client.send()
    client.server.read()
    client.now += 11
    client.send()
    client.server.new_lineage()
    client.settle()
    client.dialogue.submit({"n": Edit("INCR", 1)})
    client.settle()

    assert [] == [event for event in client.sink.events if isinstance(event, Lost)]
    assert {"n": 2} == client.server.state == client.replica.view


def test_what_a_gap_shows_to_be_lost_is_told() -> None:
    """The store has gone back, and the next update is refused before the new state comes."""
    client = Client(sequenced=True)
    client.connect()
    client.server.save()
    client.dialogue.submit({"n": Edit("INCR", 1)})
    client.settle()
    client.server.joined = False  # it is not told
    client.server.roll_back()
    client.dialogue.submit({"n": Edit("INCR", 1)})
    client.settle()

    [lost] = [event for event in client.sink.events if isinstance(event, Lost)]
    assert (1, {"n": 1}) == (lost.count, client.server.state)


def test_nothing_of_an_older_stream_is_told_as_lost() -> None:
    """Its numbers have nothing to do with those that the server speaks of."""
    client = Client(sequenced=True)
    client.connect()
    client.settle()
    client.dialogue.submit({"a": Edit("SET", 1)})
    client.settle()
    client.replica.queue.new_stream()
    client.settle()
    client.server.save()
    client.dialogue.submit({"b": Edit("SET", 1)})
    client.settle()
    client.server.roll_back()
    client.settle()

    [lost] = [event for event in client.sink.events if isinstance(event, Lost)]
    assert (1, [{"b": 1}]) == (lost.count, [update.changes for update in lost.updates])


def test_value_that_may_have_been_written_is_not_replaced_where_ids_tell() -> None:
    """A server that knows ids only may refuse a repetition before it looks whether it was done:
    under that id it would take no other value.
    """
    client = Client()
    client.connect()
    client.settle()
    client.dialogue.submit({"x": Edit("SET", 1)})
    client.send()
    client.server.read()
    client.lose()
    client.connect()
    client.server.read()
    client.deliver()
    client.server.refuse_next = "rate_limited"
    client.send()
    client.server.read()
    client.deliver()
    client.dialogue.submit({"x": Edit("SET", 2)})
    client.settle()

    assert {"x": 2} == client.server.state == client.replica.view


def test_an_acknowledged_update_does_not_wait_for_a_version_that_is_lost() -> None:
    """It was acknowledged while an older commit was missing; the store goes back behind both, to
    what the client has. The next connection begins with a difference, which has neither.
    """
    client = Client(sequenced=True)
    client.connect()
    client.settle()
    client.server.save()
    client.server.commit({"a": Edit("SET", 1)})
    client.server.lose_update()
    client.dialogue.submit({"n": Edit("INCR", 1)})
    client.send()
    client.server.read()
    client.deliver()
    client.lose()
    client.server.roll_back()
    client.settle()

    [lost] = [event for event in client.sink.events if isinstance(event, Lost)]
    assert (1, [None]) == (lost.count, [error for _, error in client.sink.finishes])
    assert {} == client.server.state == client.replica.view
