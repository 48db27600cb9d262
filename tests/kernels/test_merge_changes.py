"""Composition of change sets and three-way merge: laws of both kernels."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.kernels.merge_kit import KERNELS, MergeKernel

quick = settings(deadline=None, max_examples=200)

State = dict[bytes, bytes]

NAMES = st.sampled_from([b"a", b"b", b"c", b"d", "é".encode(), b'"'])
LONG = b'"' + b"x" * 30 + b'"'
VALUES = st.sampled_from([b"1", b"2", b"null", b"[]", LONG, LONG.replace(b"x", b"y")])
STATES = st.dictionaries(NAMES, VALUES, max_size=6)
CHANGES = st.tuples(STATES, st.lists(NAMES, unique=True, max_size=4)).map(
    lambda c: (flat({k: v for k, v in c[0].items() if k not in c[1]}), c[1])
)


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> MergeKernel:
    """One of the two implementations."""
    return KERNELS[request.param]


def flat(state: State) -> list[bytes]:
    return [part for pair in state.items() for part in pair]


def patched(state: State, change: tuple[list[bytes], list[bytes]]) -> State:
    sets, deletes = change
    kept = {key: value for key, value in state.items() if key not in deletes}
    return kept | dict(zip(sets[::2], sets[1::2], strict=True))


def merged(
    kernel: MergeKernel, base: State, server: State, client: State, known: bool = True
) -> tuple[State, list[bytes], list[bytes]]:
    """The three-way merge of complete states: result, contested keys, keys of unknown base."""
    changed = {k for k in base.keys() | server.keys() if base.get(k) != server.get(k)}
    imprints = {k: kernel.values.imprint(base.get(k)) if known else b"?" for k in changed}
    documents = kernel.documents
    sets, deletes, contested, unknown = kernel.merge.merge3(
        documents.Doc.from_flat(flat(server), 1, "e"),
        documents.split(documents.render_pairs(flat(client))),
        imprints,
        True,
    )
    return patched(server, (sets, deletes)), contested, unknown


def expected_merge(base: State, server: State, client: State) -> State:
    """Key by key: the client's value where the client changed it, else the server's."""
    result = {}
    for key in base.keys() | server.keys() | client.keys():
        mine = client.get(key) != base.get(key)
        value = client.get(key) if mine else server.get(key)
        if value is not None:
            result[key] = value
    return result


# ### Composition ###


def test_compose_example(kernel: MergeKernel) -> None:
    """What the second says about a key stands; keys keep the place where they stood first."""
    first = ([b"a", b"1", b"b", b"2", b"c", b"3"], [b"d", b"e"])
    second = ([b"b", b"9", b"d", b"4"], [b"c", b"f"])

    expected = ([b"d", b"4", b"a", b"1", b"b", b"9"], [b"e", b"c", b"f"])
    assert expected == kernel.merge.compose(first, second)


def test_compose_refuses_half_a_pair(kernel: MergeKernel) -> None:
    """A flat list has an even length."""
    with pytest.raises(ValueError, match=r"even|shorter|longer"):
        kernel.merge.compose(([b"a"], []), ([], []))


@quick
@given(state=STATES, first=CHANGES, second=CHANGES, third=CHANGES)
def test_composition(
    kernel: MergeKernel,
    state: State,
    first: tuple[list[bytes], list[bytes]],
    second: tuple[list[bytes], list[bytes]],
    third: tuple[list[bytes], list[bytes]],
) -> None:
    """One after another is the composed change; grouping does not matter; twice is once."""
    compose = kernel.merge.compose
    both = compose(first, second)

    assert patched(patched(state, first), second) == patched(state, both)
    left, right = compose(both, third), compose(first, compose(second, third))
    assert patched(state, left) == patched(state, right)
    assert set(left[1]) == set(right[1])
    assert not set(both[0][::2]) & set(both[1])
    assert both == compose(both, both)
    assert both == compose(both, ([], []))


@quick
@given(before=STATES, middle=STATES, after=STATES)
def test_differences_compose(
    kernel: MergeKernel, before: State, middle: State, after: State
) -> None:
    """delta(a, b) then delta(b, c) leads from a to c."""
    documents = kernel.documents

    def delta(old: State, new: State) -> tuple[list[bytes], list[bytes]]:
        target = documents.split(documents.render_pairs(flat(new)))
        found: tuple[list[bytes], list[bytes]] = documents.Doc.from_flat(flat(old), 1, "").diff(
            target
        )
        return found

    both = kernel.merge.compose(delta(before, middle), delta(middle, after))
    assert after == patched(before, both)


# ### Three-way merge ###


@quick
@given(base=STATES, other=STATES)
def test_one_side_only(kernel: MergeKernel, base: State, other: State) -> None:
    """merge(b, s, b) = s, merge(b, b, c) = c, merge(b, c, c) = c, without contest."""
    assert (other, [], []) == merged(kernel, base, other, base)
    assert (other, [], []) == merged(kernel, base, base, other)
    assert (other, [], []) == merged(kernel, base, other, other)


@quick
@given(base=STATES, server=STATES, client=STATES)
def test_like_a_merge_with_the_base(
    kernel: MergeKernel, base: State, server: State, client: State
) -> None:
    """Imprints do as well as the base itself; contested is what both changed to other values."""
    result, contested, unknown = merged(kernel, base, server, client)

    assert expected_merge(base, server, client) == result
    assert [] == unknown
    assert {
        key
        for key in base.keys() | server.keys() | client.keys()
        if base.get(key) != server.get(key) != client.get(key) != base.get(key)
    } == set(contested)


@quick
@given(base=STATES, server=STATES, client=STATES)
def test_unknown_base(kernel: MergeKernel, base: State, server: State, client: State) -> None:
    """Nothing known of the old values: the client's value everywhere, and all of it is named."""
    result, contested, unknown = merged(kernel, base, server, client, known=False)

    assert client == result
    assert contested == unknown
    changed = {k for k in base.keys() | server.keys() if base.get(k) != server.get(k)}
    differing = {k for k in server.keys() | client.keys() if server.get(k) != client.get(k)}
    assert changed & differing == set(unknown)


def test_absence_is_no_deletion(kernel: MergeKernel) -> None:
    """A client that sends some keys keeps the others; a complete one deletes what it dropped."""
    doc = kernel.documents.Doc.from_flat([b"a", b"1", b"b", b"2", b"new", b"3"], 2, "e")
    client = kernel.documents.split(b'{"a":9}')
    base = {b"new": b""}

    assert ([b"a", b"9"], [], [], []) == kernel.merge.merge3(doc, client, base)
    assert ([b"a", b"9"], [b"b"], [], []) == kernel.merge.merge3(doc, client, base, True)


@quick
@given(base=STATES, server=STATES, client=STATES, complete=st.booleans(), known=st.booleans())
def test_the_twins_agree(
    base: State, server: State, client: State, complete: bool, known: bool
) -> None:
    """Same lists in the same order."""
    results = []
    for kernel in KERNELS.values():
        documents = kernel.documents
        imprints = {k: kernel.values.imprint(v) if known else b"?" for k, v in base.items()}
        doc = documents.Doc.from_flat(flat(server), 1, "e")
        target = documents.split(documents.render_pairs(flat(client)))
        results.append(kernel.merge.merge3(doc, target, imprints, complete))

    assert results[0] == results[1]


def test_the_twins_have_the_same_interface() -> None:
    """What the domain may use exists on both sides, with the same bounds."""
    compiled, pure, values = (
        KERNELS["compiled"].merge,
        KERNELS["pure"].merge,
        KERNELS["pure"].values,
    )

    assert all(callable(getattr(compiled, name)) for name in pure.__all__)
    assert all(callable(getattr(KERNELS["compiled"].values, name)) for name in values.__all__)
    for name in ("IMPRINT_SHORT", "IMPRINT_LONG", "UNKNOWN"):
        assert getattr(KERNELS["compiled"].values, name) == getattr(values, name)
