"""Topic membership against a dictionary of sets, with the back references checked at each step."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from syncbridge_core.topics import TopicIndex

SLOTS = 12
slots = st.integers(0, SLOTS - 1)


class TopicModel(RuleBasedStateMachine):
    """Random opening, closing, joining and leaving, beside the obvious model."""

    def __init__(self) -> None:
        super().__init__()
        self.index = TopicIndex(SLOTS)
        self.model: dict[int, set[int]] = {}
        self.gone: list[int] = []

    def _choose(self, number: int) -> int:
        """A topic id: an open one, one that is gone, or one that never was."""
        ids = [*self.model, *self.gone, 0, 77, 1 << 40]
        return ids[number % len(ids)]

    @rule()
    def open_topic(self) -> None:
        """Ids are new each time."""
        topic = self.index.open()
        assert topic not in self.model
        assert topic not in self.gone
        self.model[topic] = set()

    @rule(number=st.integers(0, 50))
    def close_topic(self, number: int) -> None:
        """Only an open topic closes, and only once."""
        topic = self._choose(number)
        assert self.index.close(topic) == (topic in self.model)
        if self.model.pop(topic, None) is not None:
            self.gone.append(topic)

    @rule(number=st.integers(0, 50), slot=st.integers(0, SLOTS + 1))
    def subscribe(self, number: int, slot: int) -> None:
        """Joining twice is joining once; unknown topics and slots are refused."""
        topic = self._choose(number)
        possible = topic in self.model and slot < SLOTS
        assert self.index.subscribe(topic, slot) == possible
        if possible:
            self.model[topic].add(slot)

    @rule(number=st.integers(0, 50), slot=slots)
    def unsubscribe(self, number: int, slot: int) -> None:
        """Only a member can leave."""
        topic = self._choose(number)
        members = self.model.get(topic, set())
        assert self.index.unsubscribe(topic, slot) == (slot in members)
        members.discard(slot)

    @rule(slot=slots)
    def forget(self, slot: int) -> None:
        """A connection that ends leaves everything."""
        self.index.forget(slot)
        for members in self.model.values():
            members.discard(slot)

    @invariant()
    def agrees_with_the_model(self) -> None:
        """Same topics, same members, no member twice, consistent back references."""
        assert len(self.index) == len(self.model)
        for topic, members in self.model.items():
            listed = self.index.members(topic)
            assert sorted(listed) == sorted(members)
        for slot in range(SLOTS):
            own = {topic for topic, members in self.model.items() if slot in members}
            assert sorted(self.index.topics_of(slot)) == sorted(own)


TestTopicModel = TopicModel.TestCase
TestTopicModel.settings = settings(deadline=None, max_examples=80, stateful_step_count=60)


def test_large_topic_grows_and_shrinks() -> None:
    """Ten thousand members join and leave from both ends, and the order stays dense."""
    index = TopicIndex(10_000)
    topic = index.open()
    for slot in range(10_000):
        assert index.subscribe(topic, slot)

    for slot in range(9_990):
        assert index.unsubscribe(topic, slot)

    assert sorted(index.members(topic)) == list(range(9_990, 10_000))


def test_many_topics_of_one_slot() -> None:
    """One slot in a thousand topics leaves them all at once, and the others stay."""
    index = TopicIndex(2)
    topics = [index.open() for _ in range(1000)]
    for topic in topics:
        index.subscribe(topic, 0)
        index.subscribe(topic, 1)

    index.forget(0)

    assert [index.members(topic) for topic in topics] == [[1]] * 1000
    assert index.topics_of(0) == []
