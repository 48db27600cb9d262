"""Laws of documents, searched for counterexamples: against json and orjson, and against a model."""

import json
import math
from types import ModuleType
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from support.kernels.json_cases import broken, objects, outcome, values
from syncbridge.kernels import _document_py as pure_documents
from syncbridge.kernels._canonical_py import canonical
from syncbridge_core import document as compiled_documents

quick = settings(deadline=None, max_examples=150)

KEYS = st.sampled_from([b"a", b"b", b"c", b"d", "é".encode(), b'"\n', b"k" * 40]) | st.binary(
    max_size=3
)
VALUES = st.sampled_from([b"1", b"null", b"[]", b'"xyz"', b"1.0", b'{"a":"' + b"v" * 300 + b'"}'])
FLAT = st.lists(st.tuples(KEYS, VALUES), max_size=12).map(lambda p: [x for pair in p for x in pair])


def same(a: Any, b: Any) -> bool:
    """Equal as JSON values: 1 and 1.0 and True differ in kind."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) and (not isinstance(a, float) or math.copysign(1, a) == math.copysign(1, b))


@quick
@given(data=broken())
def test_what_is_accepted_is_json(kernel: ModuleType, data: bytes) -> None:
    """json and orjson accept what `compact` accepts, and read the same value from its result."""
    result = outcome(kernel, "compact", data)
    if isinstance(result, bytes):
        assert same(json.loads(data), json.loads(result))
        assert orjson.loads(result) == orjson.loads(data)


@quick
@given(data=broken())
def test_what_is_refused_as_json_is_refused_by_a_strict_parser(
    kernel: ModuleType, data: bytes
) -> None:
    """orjson refuses what is called invalid_json; our other codes are for well-formed text."""
    if outcome(kernel, "compact", data) == ("invalid_json", 400):
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError:
            return
        raise AssertionError(f"orjson accepts {data!r}")


@quick
@given(text=objects)
def test_split_loses_nothing(kernel: ModuleType, text: str) -> None:
    """The members put together again are the object; splitting the result changes nothing."""
    refused = outcome(kernel, "split", text.encode())
    if isinstance(refused[0], str):
        assert refused[0] in ("duplicate_key", "invalid_key", "number_range", "reserved_key")
        return
    parts = kernel.split(text.encode())
    again = kernel.split(parts.render())

    assert same(json.loads(text), json.loads(parts.render()))
    assert (again.render(), again.flat()) == (parts.render(), parts.flat())
    assert kernel.render_pairs(parts.flat()) == parts.render()
    assert [parts.get(key) for key in parts] == parts.flat()[1::2]
    assert all(kernel.compact(value) == value for value in parts.flat()[1::2])


@quick
@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_quote_is_read_back(kernel: ModuleType, text: str) -> None:
    """What was quoted is read back by json, and is a value that `compact` takes."""
    quoted = kernel.quote(text.encode())

    assert json.loads(quoted) == text
    assert kernel.compact(quoted) == quoted


def values_of(state: Any) -> dict[bytes, bytes]:
    """The state of a Doc or Split by value, not by spelling."""
    return {key: canonical(value) for key, value in state.items()}


@quick
@given(before=FLAT, text=objects)
def test_the_difference_leads_to_the_target(
    kernel: ModuleType, before: list[bytes], text: str
) -> None:
    """patch(a, diff(a, b)) = b by value, and diff(b, b) is empty."""
    try:
        target = kernel.split(text.encode())
    except kernel.DocumentError:
        return
    doc = kernel.Doc.from_flat(before, 1, "")
    sets, deletes = doc.diff(target)
    assert doc.apply(sets, deletes, 1, 2)

    assert values_of(doc) == values_of(target)
    assert doc.diff(target) == ([], [])


@settings(deadline=None, max_examples=500)
@given(
    data=broken() | st.binary(max_size=40) | values.map(str.encode),
    narrow=st.booleans(),
)
def test_the_twins_agree_on_any_bytes(
    compiled: ModuleType, pure: ModuleType, data: bytes, narrow: bool
) -> None:
    """Both accept the same bytes with the same result, or refuse them with the same code."""
    limits = {"max_depth": 3, "max_keys": 2, "max_key_bytes": 4, "max_value_bytes": 12}
    limits = limits | {"max_bytes": 60, "max_number_bytes": 5} if narrow else {}

    for name in ("split", "compact"):
        assert outcome(compiled, name, data, **limits) == outcome(pure, name, data, **limits)


@quick
@given(flat=FLAT, text=st.binary(max_size=20))
def test_the_twins_agree_on_foreign_keys(
    compiled: ModuleType, pure: ModuleType, flat: list[bytes], text: bytes
) -> None:
    """Whatever bytes Redis holds as keys, both render the same."""
    assert compiled.quote(text) == pure.quote(text)
    assert compiled.render_pairs(flat) == pure.render_pairs(flat)


class Replicas(RuleBasedStateMachine):
    """A history of commits through both replicas, and through plain dicts of every version."""

    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.docs: list[Any] = [compiled_documents.Doc(3, "e"), pure_documents.Doc(3, "e")]
        self.history: dict[int, dict[bytes, bytes]] = {3: {}}

    @property
    def version(self) -> int:
        return max(self.history)

    @rule(target=keys, key=KEYS)
    def name(self, key: bytes) -> bytes:
        return key

    @rule(sets=st.lists(st.tuples(keys, VALUES), max_size=4), deletes=st.lists(keys, max_size=3))
    def commit(self, sets: list[tuple[bytes, bytes]], deletes: list[bytes]) -> None:
        state = dict(self.history[self.version])
        for key in deletes:
            state.pop(key, None)
        state.update(sets)
        flat = [part for pair in sets for part in pair]
        now = self.version
        assert [doc.apply(flat, deletes, now, now + 1) for doc in self.docs] == [True, True]
        self.history[now + 1] = state

    @rule(keys=st.integers(10, 300), delete=st.booleans())
    def bulk(self, keys: int, delete: bool) -> None:
        """Enough keys for an index, for holes, and for more tombstones than are kept."""
        names = [b"bulk.%d" % n for n in range(keys)]
        now, state = self.version, dict(self.history[self.version])
        flat = [] if delete else [part for name in names for part in (name, b"%d" % now)]
        for name in names:
            if delete:
                state.pop(name, None)
            else:
                state[name] = b"%d" % now
        for doc in self.docs:
            assert doc.apply(flat, names if delete else [], now, now + 1)
        self.history[now + 1] = state

    @rule(off=st.sampled_from([-1, 1]))
    def gap(self, off: int) -> None:
        now = self.version
        assert [doc.apply([b"x", b"1"], [], now + off, now + 2) for doc in self.docs] == [False] * 2

    @rule()
    def render(self) -> None:
        rendered = [doc.render() for doc in self.docs]
        assert rendered[0] == rendered[1]

    @rule(back=st.integers(0, 6))
    def since(self, back: int) -> None:
        """state(N) changed by since(N) is the present state, or both do not know."""
        deltas = [doc.since(self.version - back) for doc in self.docs]
        assert deltas[0] == deltas[1]
        if deltas[0] is None:
            return
        old, new = self.history[self.version - back], self.history[self.version]
        changes, deleted = json.loads(deltas[0][0]), json.loads(deltas[0][1])
        known = {key: json.loads(value) for key, value in old.items()}
        patched = {key.decode("utf-8", "replace"): value for key, value in known.items()}
        patched = {key: value for key, value in patched.items() if key not in deleted} | changes
        if all(b"\xef\xbf\xbd" not in k and _is_utf8(k) for k in {**old, **new}):
            assert same(patched, {k.decode(): json.loads(v) for k, v in new.items()})

    @invariant()
    def both_are_the_model(self) -> None:
        state = self.history[self.version]
        for doc in self.docs:
            assert dict(doc.items()) == state
            assert (len(doc), doc.version) == (len(state), self.version)
            assert all(doc.get(key) == value for key, value in state.items())
        assert self.docs[0].items() == self.docs[1].items()
        assert self.docs[0].nbytes == self.docs[1].nbytes


def _is_utf8(key: bytes) -> bool:
    return key.decode("utf-8", "replace").encode() == key


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(deadline=None, max_examples=60, stateful_step_count=25)
