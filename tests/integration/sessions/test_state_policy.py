"""Keys that not everybody may write: at the socket and at each route that writes a state."""

import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio

from support.server_kit import (
    Node,
    bearer,
    mint,
    new_session,
    running_node,
    serve_once,
    server_process,
)
from support.ws_client import Device
from syncbridge.identity import Role
from syncbridge_server.auth.state_policy import load_policy
from syncbridge_server.settings import ConfigError

POLICY = """
[[rule]]
name = "entitlements"
keys = ["premium", "entitlements.*"]
write = "service"

[[rule]]
name = "cursors"
keys = ["cursor/{device}"]
write = "device"
max_bytes = 20

[[rule]]
name = "settings"
keys = ["settings"]
create = false
schema = {type = "object", properties = {volume = {type = "integer", maximum = 10}}}

[[rule]]
name = "drafts"
keys = ["draft.*"]
strategy = "client_wins"
"""
UPDATE, ERROR = 5, 10


@pytest.fixture
async def node(redis_url: str, tmp_path: Path) -> AsyncIterator[Node]:
    """A server with the policy."""
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    async with running_node(redis_url, state_policy=str(path)) as running:
        yield running


async def update(device: Device, **payload: Any) -> dict[str, Any]:
    """The answer to a STATE_UPDATE: its payload, with the message's type as `type`."""
    answer = await device.request(UPDATE, payload)
    return {**answer["payload"], "type": answer["type"]}


async def test_a_device_writes_no_key_of_the_service(node: Node) -> None:
    """Set, delete, MERGE, INCR and one of several are refused with key and rule; others go on."""
    session = new_session()
    async with await Device.open(node.port) as ann, await Device.open(node.port) as service:
        await ann.auth(mint("ann"), "tv", session_id=session)
        await ann.set("free", 1)
        await service.auth(mint("backend", Role.SERVICE), "backend", session_id=session)
        await service.set("premium", 1)
        for payload in (
            {"key": "premium", "value": 2, "operation": "SET"},
            {"key": "premium", "operation": "DELETE"},
            {"key": "premium", "value": {}, "operation": "MERGE"},
            {"key": "premium", "value": 1, "operation": "INCR"},
            {"changes": {"free": 3, "premium": 9}},
            {"deleted_keys": ["premium"]},
        ):
            answer = await update(ann, **payload)
            assert "forbidden" == answer["code"], answer
            assert ("premium", "entitlements") == (
                answer["details"]["key"],
                answer["details"]["rule"],
            )
        assert UPDATE == (await update(ann, key="free", value=2, operation="SET"))["type"]
    async with node.http() as http:
        state = await http.get(f"/session/{session}", headers=bearer(mint("ann")))

    assert {"free": 2, "premium": 1} == state.json()["state_data"]


async def test_a_device_writes_its_own_cursor(node: Node) -> None:
    """And neither another's nor one that is too large."""
    async with await Device.open(node.port) as ann:
        await ann.auth(mint("ann"), "tv")
        own = await update(ann, key="cursor/tv", value=1, operation="SET")
        other = await update(ann, key="cursor/phone", value=1, operation="SET")
        large = await update(ann, key="cursor/tv", value="x" * 30, operation="SET")

    assert (UPDATE, "forbidden", "too_large") == (own["type"], other["code"], large["code"])
    assert "cursors" == large["details"]["rule"]


async def test_a_key_is_changed_and_not_created(node: Node) -> None:
    """The store decides in the write itself, on sockets and over HTTP; the value has a schema."""
    session = new_session()
    async with await Device.open(node.port) as ann, node.http() as http:
        await ann.auth(mint("ann"), "tv", session_id=session)
        made = await update(ann, key="settings", value={}, operation="SET")
        merged = await update(ann, key="settings", value={"volume": 1}, operation="MERGE")
        await ann.set("free", 1)
        body = {"session_id": session, "base_version": 1, "changes": {"settings": {}}}
        posted = await http.post("/session/incremental", json=body, headers=bearer(mint("ann")))
        body["base_version"] = 1
        service = bearer(mint("backend", Role.SERVICE))
        created = await http.post("/session/incremental", json=body, headers=service)
        changed = await update(ann, key="settings", value={"volume": 3}, operation="SET")
        patched = await update(ann, key="settings", value={"volume": 11}, operation="MERGE")
        wrong = await update(ann, key="settings", value={"volume": 11}, operation="SET")

    for answer in (made, merged):
        assert ("forbidden", "settings") == (answer["code"], answer["details"]["rule"])
    assert (403, "settings") == (posted.status_code, posted.json()["rule"])
    assert 200 == created.status_code
    assert UPDATE == changed["type"]
    assert ["invalid_field"] * 2 == [patched["code"], wrong["code"]]
    assert "/volume" in wrong["message"]


async def test_a_strategy_for_updates_that_name_none(node: Node) -> None:
    """From an older version a draft wins, where another key is a conflict."""
    async with await Device.open(node.port) as ann:
        await ann.auth(mint("ann"), "tv")
        for key in ("draft.1", "other"):
            await ann.set(key, 1)
            await ann.set(key, 2)
        draft = await update(ann, key="draft.1", value=3, operation="SET", base_version=1)
        other = await update(ann, key="other", value=3, operation="SET", base_version=1)

    assert (UPDATE, "version_conflict") == (draft["type"], other["code"])


async def written(http: httpx.AsyncClient, session: str, state: dict[str, Any]) -> None:
    """A state written by a service."""
    body = {"session_id": session, "user_id": "ann", "state_data": state}
    done = await http.post("/session/snapshot", json=body, headers=bearer(mint("b", Role.SERVICE)))
    assert 201 == done.status_code, done.text


async def test_a_snapshot_leaves_what_its_caller_may_not_write(node: Node) -> None:
    """New, changed and absent: the keys stay as they are, and `kept` names them."""
    session, ann = new_session(), bearer(mint("ann"))
    async with node.http() as http:
        await written(http, session, {"premium": True, "entitlements.a": 1, "x": 1})
        state = {"premium": False, "entitlements.b": 1, "settings": {}, "y": 2}
        body = {"session_id": session, "user_id": "ann", "state_data": state, "version": 1}
        done = await http.post("/session/snapshot", json=body, headers=ann)
        got = await http.get(f"/session/{session}", headers=ann)
        stale = await http.post("/session/snapshot", json=body, headers=ann)
        ahead = await http.post("/session/snapshot", json=body | {"version": 9}, headers=ann)

    assert 200 == done.status_code, done.text
    assert {"premium", "entitlements.a", "entitlements.b", "settings"} == set(done.json()["kept"])
    assert {"premium": True, "entitlements.a": 1, "y": 2} == got.json()["state_data"]
    assert "kept" not in got.json()
    assert (409, 409) == (stale.status_code, ahead.status_code)


async def test_the_first_snapshot_of_a_session_makes_no_protected_key(node: Node) -> None:
    """Also as version 1 of a session that is not there; a value against its schema is refused."""
    async with node.http() as http:
        for version in (0, 1):
            session, ann = new_session(), bearer(mint("ann"))
            body = {"session_id": session, "user_id": "ann", "version": version}
            state = {"premium": True, "y": 2}
            done = await http.post(
                "/session/snapshot", json=body | {"state_data": state}, headers=ann
            )
            got = await http.get(f"/session/{session}", headers=ann)
            assert (201, ["premium"]) == (done.status_code, done.json()["kept"])
            assert {"y": 2} == got.json()["state_data"]
        bad = {"session_id": new_session(), "user_id": "ann", "state_data": {"settings": 1}}
        refused = await http.post(
            "/session/snapshot", json=bad, headers=bearer(mint("b", Role.SERVICE))
        )

    assert (422, "settings") == (refused.status_code, refused.json()["rule"])


@pytest.mark.parametrize("strategy", ["client_wins", "merge"])
async def test_a_resolution_leaves_what_its_caller_may_not_write(node: Node, strategy: str) -> None:
    """The client's other changes are made; on kept keys the server has won."""
    session, ann = new_session(), bearer(mint("ann"))
    async with node.http() as http:
        await written(http, session, {"premium": True, "x": 1})
        body = {
            "session_id": session,
            "client_version": 1,
            "client_state": {"premium": False, "x": 2},
            "resolution_strategy": strategy,
        }
        done = await http.post("/session/conflict/resolve", json=body, headers=ann)

    assert 200 == done.status_code, done.text
    assert ["premium"] == done.json()["kept"]
    assert {"premium": True, "x": 2} == done.json()["state_data"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[rule]]\nname='a'\nkeys=['x']\nwrite='root'", "write"),
        ("[[rule]]\nname='a'\nkeys=['x']\nwrites='user'", "writes"),
        ("[[rule]]\nname='a'\nkeys=['x']\nwrite='device'", "needs {device}"),
        ("[[rule]]\nname='a'\nkeys=['x']\nschema={type='bolean'}", "schema"),
        ("[[rule]]\nname='a'\nkeys=['x']\nschema={'$ref'='http://127.0.0.1:1/'}", "schema"),
        ("[[rule]]\nname='a'\nkeys=['x']\nschema={pattern='(?=a)b'}", "schema"),
        ("rule = 1", "rule"),
        ("[[rule", "TOML"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """One line says which file and what; nothing is fetched for a schema."""
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_policy(str(path))

    assert "SYNCBRIDGE_STATE_POLICY" in str(refused.value)
    assert words in str(refused.value) or words == "TOML"
    assert "\n" not in str(refused.value)


def test_a_server_does_not_start_with_a_broken_policy(tmp_path: Path, redis_url: str) -> None:
    """One line, exit code 2, also for a file that is not there."""
    done = serve_once(tmp_path, redis_url, SYNCBRIDGE_STATE_POLICY=str(tmp_path / "none.json"))

    assert 2 == done.returncode
    assert "none.json: No such file" in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_sighup_reads_the_policy_again(tmp_path: Path, redis_url: str, workers: str) -> None:
    """On every worker; a file that cannot be used changes nothing."""
    path = tmp_path / "policy.json"
    path.write_text('{"rule": []}')
    locked = {"rule": [{"name": "all", "keys": ["*"], "write": "admin"}]}
    with server_process(
        tmp_path, redis_url, SYNCBRIDGE_STATE_POLICY=str(path), SYNCBRIDGE_WORKERS=workers
    ) as process:
        await logged(process.log, "listening on http", int(workers))
        for text, lines in (
            (json.dumps(locked), "state_policy_loaded"),
            ("{", "state_policy_reload_failed"),
        ):
            path.write_text(text)
            await hung_up(process.popen.pid, process.log, lines, int(workers))
            for number in range(8):  # each a connection of its own, so that both workers answer
                async with await Device.open(process.port) as ann:
                    await ann.auth(mint("ann"), f"tv-{number}")
                    assert "forbidden" == (await update(ann, key="a", value=1))["code"]


async def hung_up(pid: int, log: Path, line: str, times: int) -> None:
    """Send SIGHUP and wait until the log has a line so many times."""
    os.kill(pid, signal.SIGHUP)
    await logged(log, line, times)


async def logged(log: Path, line: str, times: int) -> None:
    """Wait until the log has a line so many times."""
    with trio.fail_after(30):
        while (await trio.Path(log).read_text()).count(line) < times:  # noqa: ASYNC110
            await trio.sleep(0.05)
