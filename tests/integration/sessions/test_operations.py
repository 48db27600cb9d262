"""Operations on one key, over real sockets: results, refusals, repetitions, and many at once."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio

from support.server_kit import Node, mint, new_session, running_node
from support.ws_client import Device

STATE_UPDATE, ERROR, SNAPSHOT = 5, 6, 3
MAX_INT = 2**63 - 1


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, rate_limit_enabled=False) as running:
        yield running


@pytest.fixture
async def phone(node: Node) -> AsyncIterator[Device]:
    async with await Device.open(node.port) as device:
        await device.auth(mint("ann"), "phone", session_id=new_session())
        yield device


async def run(
    device: Device, operation: str, value: Any, key: str = "k", **extra: Any
) -> dict[str, Any]:
    """Send one operation with a fresh correlation id; the answer."""
    correlation_id = extra.pop("correlation_id", None)
    payload = {"key": key, "value": value, "operation": operation, **extra}
    return await device.request(STATE_UPDATE, payload, correlation_id)


EXAMPLES: list[tuple[Any, str, Any, Any]] = [
    # before (... for none), operation, operand, after
    (..., "INCR", 5, 5),
    (7, "INCR", 5, 12),
    (7, "INCR", -9, -2),
    (7, "INCR", 0, 7),
    (MAX_INT - 1, "INCR", 1, MAX_INT),
    (-(2**63) + 1, "INCR", -1, -(2**63)),
    (9007199254740993, "INCR", 9007199254740993, 18014398509481986),
    (10**18, "INCR", -1, 10**18 - 1),
    (-(10**18), "INCR", 1, -(10**18) + 1),
    (MAX_INT, "INCR", -MAX_INT, 0),
    (..., "APPEND", 1, [1]),
    ([], "APPEND", {"a": []}, [{"a": []}]),
    ([1, "]"], "APPEND", [2], [1, "]", [2]]),
    (..., "MAX", 3, 3),
    (3, "MAX", 4, 4),
    (4, "MAX", 3, 4),
    (9007199254740992, "MAX", 9007199254740993, 9007199254740993),
    (-2, "MAX", -1.5, -1.5),
    (0.1, "MAX", 1e-5, 0.1),
    (10**30, "MIN", 10**30 - 1, 10**30 - 1),
    (-1, "MIN", -2, -2),
    (0, "MIN", 5, 0),
    (..., "MIN", 2.5, 2.5),
    (..., "SETNX", {"a": 1}, {"a": 1}),
    (..., "MERGE", {"a": 1, "b": None}, {"a": 1}),
    ({"a": 1, "b": {"c": 2}}, "MERGE", {"b": {"c": None, "d": 3}}, {"a": 1, "b": {"d": 3}}),
    ("text", "MERGE", {"a": 1}, {"a": 1}),
    ({"a": 1}, "MERGE", "text", "text"),
    ({"a": 1}, "MERGE", None, None),
]


@pytest.mark.parametrize(("before", "operation", "operand", "after"), EXAMPLES)
async def test_result(phone: Device, before: Any, operation: str, operand: Any, after: Any) -> None:
    """The acknowledgement carries the result as a SET, also when nothing changed."""
    if before is not ...:
        await phone.set("k", before)
    answer = await run(phone, operation, operand)

    assert STATE_UPDATE == answer["type"], answer
    payload = answer["payload"]
    assert ("k", after, "SET") == (payload["key"], payload["value"], payload["operation"])
    assert {"k": after} == payload["changes"]
    changed = before is ... or before != after
    assert changed == (payload["version"] != payload["prev_version"])
    snapshot = await phone.request(SNAPSHOT)
    assert {"k": after} == snapshot["payload"]["state_data"]
    assert payload["version"] == snapshot["payload"]["version"]


async def test_other_devices_see_results(node: Node, phone: Device) -> None:
    """The other device receives a SET of the result, and nothing for what changed nothing."""
    async with await Device.open(node.port) as tablet:
        await tablet.auth(mint("ann"), "tablet", session_id=phone.welcome["session_id"])
        await run(phone, "INCR", 5)
        await run(phone, "MAX", 3)
        await run(phone, "APPEND", "x", key="list")
        seen = [(await tablet.receive(STATE_UPDATE))["payload"] for _ in range(2)]

    assert [("k", 5, "SET", 1), ("list", ["x"], "SET", 2)] == [
        (p["key"], p["value"], p["operation"], p["version"]) for p in seen
    ]


async def test_number_text_of_max_is_kept(phone: Device) -> None:
    """Equal numbers of another spelling change nothing; a greater one keeps its own spelling."""
    await phone.send_text('{"type":5,"payload":{"key":"k","value":1.50}}')
    await phone.receive(STATE_UPDATE)
    await phone.send_text('{"type":5,"payload":{"key":"k","value":15e-1,"operation":"MAX"}}')
    same = await phone.receive(STATE_UPDATE)
    assert '"value":1.50,' in phone.raw[-1]
    await phone.send_text('{"type":5,"payload":{"key":"k","value":15.10e-1,"operation":"MAX"}}')
    await phone.receive(STATE_UPDATE)

    assert same["payload"]["version"] == same["payload"]["prev_version"] == 1
    assert '"value":15.10e-1,' in phone.raw[-1]


REFUSED: list[tuple[Any, str, Any, str]] = [
    # before (... for none), operation, operand, code
    ("5", "INCR", 1, "type_mismatch"),
    (None, "INCR", 1, "type_mismatch"),
    ([1], "INCR", 1, "type_mismatch"),
    (True, "INCR", 1, "type_mismatch"),
    (1.5, "INCR", 1, "not_an_integer"),
    (MAX_INT, "INCR", 1, "out_of_range"),
    (-(2**63), "INCR", -1, "out_of_range"),
    (2**63, "INCR", 0, "out_of_range"),
    (10**40, "INCR", -1, "out_of_range"),
    (1, "INCR", 1.5, "not_an_integer"),
    (1, "INCR", "5", "type_mismatch"),
    (1, "INCR", None, "type_mismatch"),
    (1, "INCR", 2**63, "out_of_range"),
    (1, "incr", 1, "unknown_operation"),
    (1, "POP", 1, "unknown_operation"),
    (1, "", 1, "unknown_operation"),
    ("[]", "APPEND", 1, "type_mismatch"),
    ({}, "APPEND", 1, "type_mismatch"),
    (0, "APPEND", 1, "type_mismatch"),
    ("9", "MAX", 1, "type_mismatch"),
    (1, "MAX", "9", "type_mismatch"),
    (1, "MIN", None, "type_mismatch"),
    ([], "MIN", 1, "type_mismatch"),
    (1, "SETNX", 2, "precondition_failed"),
    (None, "SETNX", 2, "precondition_failed"),
    (1, "CAS", 2, "precondition_failed"),
]


@pytest.mark.parametrize(("before", "operation", "operand", "code"), REFUSED)
async def test_refused(phone: Device, before: Any, operation: str, operand: Any, code: str) -> None:
    """A typed ERROR with a sentence; nothing is written, and the socket goes on."""
    await phone.set("k", before)
    answer = await run(phone, operation, operand)
    after = await phone.request(SNAPSHOT)

    assert (ERROR, code, False) == (
        answer["type"],
        answer["payload"]["code"],
        answer["payload"]["retryable"],
    )
    assert answer["payload"]["message"]
    assert ({"k": before}, 1) == (after["payload"]["state_data"], after["payload"]["version"])


async def test_exponents_count_by_their_value(phone: Device) -> None:
    """INCR counts with a stored 1e2, which is 100; what is given has to be written in digits."""
    await phone.send_text('{"type":5,"payload":{"key":"k","value":1e2}}')
    await phone.receive(STATE_UPDATE)
    stored = await run(phone, "INCR", 1)
    assert 101 == stored["payload"]["value"]
    await phone.send_text(
        '{"type":5,"correlation_id":"c","payload":{"key":"n","value":1e2,"operation":"INCR"}}'
    )
    given = await phone.receive(ERROR)

    assert "not_an_integer" == given["payload"]["code"]


async def test_minus_zero_counts_as_zero(phone: Device) -> None:
    """-0 is an integer, and equal to 0: the first spelling stays until the value is another."""
    await phone.send_text('{"type":5,"payload":{"key":"k","value":-0}}')
    await phone.receive(STATE_UPDATE)
    await phone.send_text(
        '{"type":5,"correlation_id":"c","payload":{"key":"k","value":-0,"operation":"INCR"}}'
    )
    answer = await phone.receive(STATE_UPDATE)

    assert '"value":-0,' in phone.raw[-1]
    assert 1 == answer["payload"]["version"]
    await phone.send_text(
        '{"type":5,"correlation_id":"d","payload":{"key":"k","value":1,"operation":"INCR"}}'
    )
    await phone.receive(STATE_UPDATE)
    assert '"value":1,' in phone.raw[-1]


# ### CAS and SETNX ###


async def test_compare_and_set(phone: Device) -> None:
    """CAS writes when the value is the expected one, and else tells which it is."""
    created = await run(phone, "CAS", "one")
    wrong = await run(phone, "CAS", "three", expected="two")
    done = await run(phone, "CAS", {"n": 2}, expected="one")
    again = await run(phone, "CAS", 0)

    assert [STATE_UPDATE, ERROR, STATE_UPDATE, ERROR] == [
        a["type"] for a in (created, wrong, done, again)
    ]
    details = wrong["payload"]["details"]
    assert ("k", 1, True, "one") == tuple(
        details[name] for name in ("key", "current_version", "exists", "server_value")
    )
    assert {"n": 2} == again["payload"]["details"]["server_value"]


async def test_compare_with_a_key_that_is_not_there(phone: Device) -> None:
    """A value is expected and there is none: the details say so."""
    await phone.set("other", 1)
    answer = await run(phone, "CAS", 1, expected=0)

    assert "precondition_failed" == answer["payload"]["code"]
    details = answer["payload"]["details"]
    assert (False, 1) == (details["exists"], details["current_version"])
    assert "server_value" not in details


async def test_comparison_is_by_value(phone: Device) -> None:
    """Neither spaces nor the spelling of a number matter."""
    await phone.send_text('{"type":5,"payload":{"key":"k","value":[ 1.0 , 2 ]}}')
    await phone.receive(STATE_UPDATE)
    cas = '{"type":5,"correlation_id":"c%d","payload":{"key":"k","value":%d,"operation":"CAS",'
    await phone.send_text(cas % (1, 1) + '"expected":[1,2]}}')
    other = await phone.receive(ERROR, STATE_UPDATE)
    await phone.send_text(cas % (2, 2) + '"expected": [1.0, 2] }}')
    wrong = await phone.receive(ERROR, STATE_UPDATE)
    await phone.send_text(cas % (3, 3) + '"expected": 10e-1 }}')
    same = await phone.receive(ERROR, STATE_UPDATE)

    assert [STATE_UPDATE, ERROR, STATE_UPDATE] == [a["type"] for a in (other, wrong, same)]


async def test_only_cas_takes_expected(phone: Device) -> None:
    """A guard that would be ignored is refused."""
    answer = await run(phone, "SET", 1, expected=0)

    assert "invalid_message" == answer["payload"]["code"]


async def test_one_of_many_wins_a_setnx(node: Node, phone: Device) -> None:
    """Of eight devices that create one key, one succeeds, and the others are told its value."""
    session = phone.welcome["session_id"]
    answers: list[dict[str, Any]] = []

    async def compete(number: int) -> None:
        async with await Device.open(node.port) as device:
            await device.auth(mint("ann"), f"d{number}", session_id=session)
            answers.append(await run(device, "SETNX", number))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(compete, number)

    won = [a["payload"]["value"] for a in answers if a["type"] == STATE_UPDATE]
    assert 1 == len(won)
    lost = [a["payload"]["details"]["server_value"] for a in answers if a["type"] == ERROR]
    assert won * 7 == lost


# ### Idempotency ###


@pytest.mark.parametrize("operation", ["INCR", "APPEND"])
async def test_needs_a_correlation_id(phone: Device, operation: str) -> None:
    """What would count twice is refused without a way to recognise a repetition."""
    await phone.send(STATE_UPDATE, {"key": "k", "value": 1, "operation": operation})
    answer = await phone.receive(ERROR)

    assert "invalid_message" == answer["payload"]["code"]
    assert "correlation_id" in answer["payload"]["message"]


@pytest.mark.parametrize(
    ("operation", "operand", "after"),
    [("INCR", 2, 2), ("APPEND", 2, [2]), ("MAX", 2, 2), ("SETNX", 2, 2), ("CAS", 2, 2),
     ("MERGE", {"a": 2}, {"a": 2})],
)  # fmt: skip
async def test_repetition_is_done_once(
    phone: Device, operation: str, operand: Any, after: Any
) -> None:
    """The second answer names the version of the first, and nothing has changed."""
    first = await run(phone, operation, operand, correlation_id="same")
    await phone.set("other", 1)
    again = await run(phone, operation, operand, correlation_id="same")
    snapshot = await phone.request(SNAPSHOT)

    assert (1, 1, {}) == tuple(again["payload"][k] for k in ("version", "prev_version", "changes"))
    assert 1 == first["payload"]["version"]
    assert ({"k": after, "other": 1}, 2) == (
        snapshot["payload"]["state_data"],
        snapshot["payload"]["version"],
    )


@pytest.mark.parametrize("numbered", [True, False], ids=["number", "id"])
async def test_writes_of_others_do_not_count_it_twice(
    node: Node, phone: Device, numbered: bool
) -> None:
    """600 of them between an INCR and its repetition on another connection."""
    extra = {"stream": "queue", "seq": 1} if numbered else {}
    session = phone.welcome["session_id"]
    first = await run(phone, "INCR", 1, correlation_id="same", **extra)
    async with await Device.open(node.port) as other:
        await other.auth(mint("ann"), "other", session_id=session)
        for number in range(600):
            await other.set("n", number)
    async with await Device.open(node.port) as again:
        await again.auth(mint("ann"), "phone", session_id=session)
        repeated = await run(again, "INCR", 1, correlation_id="same", **extra)
        snapshot = await again.request(SNAPSHOT)

    assert [STATE_UPDATE, STATE_UPDATE] == [first["type"], repeated["type"]]
    assert ({"k": 1, "n": 599}, 601) == tuple(
        snapshot["payload"][name] for name in ("state_data", "version")
    )


async def test_failed_attempt_is_not_remembered(phone: Device) -> None:
    """A refused operation may succeed later under the same id."""
    await phone.set("k", "x")
    refused = await run(phone, "INCR", 1, correlation_id="same")
    await phone.set("k", 1)
    done = await run(phone, "INCR", 1, correlation_id="same")

    assert [ERROR, STATE_UPDATE] == [refused["type"], done["type"]]
    assert 2 == done["payload"]["value"]


# ### Bounds, and base_version ###


async def test_list_cannot_outgrow_a_value(redis_url: str) -> None:
    """APPEND and MERGE are held to the size of a value; the error names the key."""
    async with running_node(redis_url, value_bytes=100) as node:
        async with await Device.open(node.port) as phone:
            await phone.auth(mint("ann"), "phone", session_id=new_session())
            await run(phone, "APPEND", "x" * 80)
            long = await run(phone, "APPEND", "y" * 20)
            await run(phone, "MERGE", {"a": "x" * 60}, key="m")
            wide = await run(phone, "MERGE", {"b": "x" * 60}, key="m")
            short = await run(phone, "APPEND", 1)

    assert ["too_large"] * 2 == [a["payload"]["code"] for a in (long, wide)]
    assert "k" == long["payload"]["details"]["key"]
    assert ["x" * 80, 1] == short["payload"]["value"]


@pytest.mark.parametrize(("depth", "kind"), [(62, STATE_UPDATE), (63, ERROR)])
async def test_element_is_not_too_deep(phone: Device, depth: int, kind: int) -> None:
    """An element lies two levels down, so it may be two levels less deep than a state."""
    nested = "[" * depth + "]" * depth
    payload = '{"key":"k","operation":"APPEND","value":%s}' % nested
    await phone.send_text('{"type":5,"correlation_id":"c","payload":%s}' % payload)
    answer = await phone.receive(STATE_UPDATE, ERROR)
    await phone.request(SNAPSHOT)

    assert kind == answer["type"]


async def test_base_version_does_not_stop_what_commutes(phone: Device) -> None:
    """INCR counts on whatever is there; MERGE and CAS respect base_version."""
    await phone.set("n", 1)
    await phone.set("n", 2)
    await phone.set("m", {"a": 1})
    await phone.set("m", {"a": 2})
    counted = await run(phone, "INCR", 1, key="n", base_version=1)
    merged = await run(phone, "MERGE", {"b": 1}, key="m", base_version=3)
    compared = await run(phone, "CAS", 9, key="n", expected=3, base_version=1)

    assert (STATE_UPDATE, 3) == (counted["type"], counted["payload"]["value"])
    assert ["version_conflict"] * 2 == [a["payload"]["code"] for a in (merged, compared)]
    assert [{"key": "m", "server_value": {"a": 2}}] == merged["payload"]["details"]["conflicts"]


@pytest.mark.parametrize(
    "payload",
    [
        {"key": "k", "operation": "INCR"},
        {"key": "k", "operation": "MERGE"},
        {"changes": {"k": 1}, "operation": "INCR"},
        {"key": "k", "value": 1, "changes": {"a": 1}, "operation": "MAX"},
    ],
)
async def test_wrong_shape(phone: Device, payload: dict[str, Any]) -> None:
    """An operation goes with one key and a value, nothing else."""
    answer = await phone.request(STATE_UPDATE, payload)

    assert (ERROR, "invalid_message") == (answer["type"], answer["payload"]["code"])


# ### Many at once ###


async def test_counting_on_two_nodes(redis_url: str) -> None:
    """Eight connections on two nodes, fifty INCR and APPEND each: no count and no element lost."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:

        async def count(number: int) -> None:
            node = one if number % 2 else two
            async with await Device.open(node.port) as device:
                await device.auth(mint("ann"), f"d{number}", session_id=session)
                for n in range(50):
                    payload = {"key": "n", "value": number + 1, "operation": "INCR"}
                    await device.send(STATE_UPDATE, payload, f"i{n}")
                    if n % 5 == 0:
                        append = {"key": "l", "value": [number, n], "operation": "APPEND"}
                        await device.send(STATE_UPDATE, append, f"a{n}")
                waiting = {f"i{n}" for n in range(50)} | {f"a{n}" for n in range(0, 50, 5)}
                while waiting:
                    message = await device.receive(STATE_UPDATE, ERROR)
                    assert message["type"] == STATE_UPDATE, message
                    if message["device_id"] == f"d{number}":
                        waiting.discard(message["correlation_id"])

        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(count, number)
        async with await Device.open(one.port) as reader:
            welcome = await reader.auth(mint("ann"), "reader", session_id=session)

    state = welcome["state_data"]
    assert sum(range(1, 9)) * 50 == state["n"]
    assert sorted([d, n] for d in range(8) for n in range(0, 50, 5)) == sorted(state["l"])
    assert 8 * 50 + 8 * 10 == welcome["version"]


async def test_merging_on_two_nodes(redis_url: str) -> None:
    """Four connections merge their own members into one value: every member is there at the end."""
    session = new_session()
    async with running_node(redis_url) as one, running_node(redis_url) as two:

        async def merge(number: int) -> None:
            node = one if number % 2 else two
            async with await Device.open(node.port) as device:
                await device.auth(mint("ann"), f"d{number}", session_id=session)
                for n in range(10):
                    answer = await run(device, "MERGE", {f"{number}.{n}": n})
                    while answer["type"] == ERROR:
                        assert answer["payload"]["retryable"], answer
                        answer = await run(device, "MERGE", {f"{number}.{n}": n})

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(merge, number)
        async with await Device.open(one.port) as reader:
            welcome = await reader.auth(mint("ann"), "reader", session_id=session)

    expected = {f"{number}.{n}": n for number in range(4) for n in range(10)}
    assert expected == welcome["state_data"]["k"]
