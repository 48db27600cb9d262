"""docs/conflicts.md is right: every row of its tables is run against a server."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from support.server_kit import Node, bearer, mint, new_session, running_node
from support.source_tree import ROOT
from syncbridge.resolve import Strategy

PAGE = (ROOT / "docs" / "conflicts.md").read_text()
CHANGE_SETS, WHOLE_STATES = 7, 8
"""Columns of the two tables, by which they are told apart."""


def rows(columns: int) -> list[list[str]]:
    """The rows of the table with that many columns, backticks removed."""
    lines = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("|")]
    cells = [[cell.strip(" `") for cell in line] for line in lines]
    return [c for c in cells if len(c) == columns and re.match(r"\w+_wins|merge|none", c[0])]


@pytest.fixture
async def node(redis_url: str) -> AsyncIterator[Node]:
    async with running_node(redis_url, rate_limit_enabled=False) as running:
        yield running


@pytest.fixture
async def http(node: Node) -> AsyncIterator[httpx.AsyncClient]:
    async with node.http() as client:
        client.headers.update(bearer(mint("ann")))
        yield client


async def history(http: httpx.AsyncClient, base: dict[str, Any], server: dict[str, Any]) -> str:
    """A session that was `base` at version 1 and is `server` now."""
    session = new_session()
    body = {"session_id": session, "user_id": "ann", "state_data": base}
    assert 201 == (await http.post("/session/snapshot", json=body)).status_code
    change = {
        "session_id": session,
        "base_version": 1,
        "changes": {k: v for k, v in server.items() if base.get(k) != v},
        "deleted_keys": [k for k in base if k not in server],
    }
    applied = await http.post("/session/incremental", json=change)
    assert 200 == applied.status_code
    assert (1 if base == server else 2) == applied.json()["version"]
    return session


async def state_of(http: httpx.AsyncClient, session: str) -> dict[str, Any]:
    answer: dict[str, Any] = (await http.get(f"/session/{session}")).json()
    return answer


@pytest.mark.parametrize("row", rows(CHANGE_SETS), ids=" ".join)
async def test_change_sets(http: httpx.AsyncClient, row: list[str]) -> None:
    """Status, state and conflicts are those of the row; refused and lost keys are not applied."""
    strategy, *texts, conflicts = row
    base, server, change = map(json.loads, texts[:3])
    session = await history(http, base, server)
    before = await state_of(http, session)
    body = change | {"session_id": session, "base_version": 1}
    if strategy != "none":
        body["resolution_strategy"] = strategy
    answer = await http.post("/session/incremental", json=body)
    after = await state_of(http, session)

    assert int(texts[3]) == answer.status_code
    assert json.loads(texts[4]) == after["state_data"]
    assert json.loads(conflicts) == answer.json()["conflicts"]
    if answer.status_code == 200:
        asked = [*change.get("changes", {}), *change.get("deleted_keys", [])]
        lost = [conflict["key"] for conflict in json.loads(conflicts)]
        assert [key for key in asked if key not in lost] == answer.json()["applied"]
        assert after["version"] == answer.json()["version"]
    else:
        assert "version_conflict" == answer.json()["code"]
        assert before["version"] == answer.json()["current_version"] == after["version"]
        assert before["epoch"] == answer.json()["epoch"]


@pytest.mark.parametrize("row", rows(WHOLE_STATES), ids=" ".join)
async def test_whole_states(http: httpx.AsyncClient, row: list[str]) -> None:
    """State, conflicts and base are those of the row; a version is made only for a change."""
    strategy, *texts, known = row
    base, server, client, more, state, conflicts = map(json.loads, texts)
    session = await history(http, base, server)
    before = await state_of(http, session)
    body = {
        "session_id": session,
        "client_version": 1,
        "client_state": client,
        "resolution_strategy": strategy,
    }
    answer = await http.post("/session/conflict/resolve", json=body | more)
    after = await state_of(http, session)

    assert 200 == answer.status_code, answer.text
    resolved = answer.json()
    assert (state, state) == (resolved["state_data"], after["state_data"])
    assert conflicts == resolved["conflicts"]
    assert (session, strategy, known) == tuple(
        resolved[name] for name in ("session_id", "resolution_strategy", "base")
    )
    expected = before["version"] + (before["state_data"] != state)
    assert (expected, expected) == (resolved["version"], after["version"])
    assert after["epoch"] == resolved["epoch"]


def test_the_tables_cover_every_strategy() -> None:
    """No strategy is missing, and the tables were found at all."""
    strategies = {strategy.value for strategy in Strategy}

    assert strategies | {"none"} == {row[0] for row in rows(CHANGE_SETS)}
    assert strategies == {row[0] for row in rows(WHOLE_STATES)}
