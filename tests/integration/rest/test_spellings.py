"""Values that are written in different ways, through a whole server: they are the same value.

Each pair has a value as some client may write it, and as a browser writes what it has read.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.ws_client import Device

STATE_UPDATE, ERROR = 5, 6
PAIRS = [
    (r'"caf\u00e9"', '"café"'),
    (r'"\ud83d\ude00"', '"😀"'),
    (r'"a\/b"', '"a/b"'),
    (r'"\u0008"', r'"\b"'),
    ("1.0", "1"),
    ("-0", "0"),
    ("-0.0", "0"),
    ("0.10", "0.1"),
    ("1e2", "100"),
    ("1E+2", "100"),
    ("100e-2", "1"),
    ("5e-6", "0.000005"),
    ("1000000000000000000000", "1e+21"),
    ("[1.0,2]", "[1,2]"),
    ('{"b":1,"a":2}', '{"a":2,"b":1}'),
    (r'{"\u0061":1}', '{"a":1}'),
    (r'{"x":{"b":[1.00,{"d":1,"c":2}],"a":"\/"}}', '{"x":{"a":"/","b":[1,{"c":2,"d":1}]}}'),
    ('"' + r"\u00e9" * 1_200 + '"', '"' + "é" * 1_200 + '"'),
    ("[" + ",".join(["1.0"] * 3_000) + "]", "[" + ",".join(["1"] * 3_000) + "]"),
]


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, rate_limit_enabled=False) as running:
        yield running


async def post(node: Node, path: str, session: str, members: str) -> Any:
    """The answer to a body with these members; it is not refused."""
    headers = bearer(mint("ann")) | {"Content-Type": "application/json"}
    body = f'{{"session_id":"{session}",{members}}}'
    async with node.http() as http:
        answer = await http.post(path, headers=headers, content=body.encode())
    assert answer.is_success, answer.text
    return answer.json()


async def create(node: Node, written: str) -> str:
    """A session whose `k` is written so."""
    session = new_session()
    state = f'"user_id":"ann","state_data":{{"k":{written},"o":0}}'
    await post(node, "/session/snapshot", session, state)
    return session


async def test_an_equal_value_makes_no_version(node: Node) -> None:
    """By difference and as a whole state; the first spelling stays."""
    for written, read in PAIRS:
        session = await create(node, written)
        change = f'"base_version":1,"changes":{{"k":{read}}}'
        state = f'"user_id":"ann","version":1,"state_data":{{"k":{read},"o":0}}'
        answers = [
            await post(node, "/session/incremental", session, change),
            await post(node, "/session/snapshot", session, state),
        ]
        async with node.http() as http:
            stored = (await http.get(f"/session/{session}", headers=bearer(mint("ann")))).text

        assert [answer["version"] for answer in answers] == [1, 1]
        assert f'"k":{written}' in stored


async def test_merge_keeps_what_another_device_wrote(node: Node) -> None:
    """A browser that has changed another key gives back the whole state as it spells it."""
    for written, read in PAIRS:
        session = await create(node, written)
        newer = '"base_version":1,"changes":{"k":"newer"}'
        await post(node, "/session/incremental", session, newer)
        mine = f'"client_version":1,"client_state":{{"k":{read},"o":5}}'
        path, strategy = "/session/conflict/resolve", ',"resolution_strategy":"merge"'
        merged = await post(node, path, session, mine + strategy)

        assert merged["state_data"] == {"k": "newer", "o": 5}, written


async def test_cas_with_the_value_that_was_read(node: Node) -> None:
    """It succeeds, and with another value it does not."""
    cas = '{"type":5,"correlation_id":"c","payload":{"key":"k","operation":"CAS","value":"done",'
    for written, read in PAIRS:
        session = await create(node, written)
        async with await Device.open(node.port) as device:
            await device.auth(mint("ann"), "d", session_id=session)
            answers = []
            for expected in ('"another"', read):
                await device.send_text(cas + f'"expected":{expected}}}}}')
                answers.append(await device.receive(STATE_UPDATE, ERROR))

        assert [answer["type"] for answer in answers] == [ERROR, STATE_UPDATE], written
