"""Events are sent again by time and by cursor; requests that mean nothing are refused."""

from typing import Any

import httpx
import pytest

from support.redis_servers import RedisServer
from support.server_kit import create_session, new_session
from syncbridge_server.http import endpoints as routes

Json = dict[str, Any]


async def endpoint(http: httpx.AsyncClient, **members: Any) -> str:
    body = {"url": "https://example.com/", **members}
    answer = await http.post("/admin/webhooks", json=body)
    assert 201 == answer.status_code, answer.text
    return f"/admin/webhooks/{answer.json()['id']}"


async def logged(http: httpx.AsyncClient, count: int) -> list[Json]:
    """The log, once it has so many events."""
    found: list[Json] = []
    after = ""
    while len(found) < count:
        page = (await http.get("/events", params={"after": after, "wait": 10})).json()
        found, after = [*found, *page["events"]], page["cursor"]
    return found


async def test_what_is_more_than_one_request_sends_goes_on_by_cursor(
    http: httpx.AsyncClient, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each event once, in order, though many came into the log in one moment."""
    monkeypatch.setattr(routes, "REPLAY_MOST", 2)
    path = await endpoint(http, kinds=["session.created"])
    for _ in range(5):
        await create_session(http, a=1)
    events = await logged(http, 5)
    answers: list[Json] = []
    body: Json = {"since": 0}
    while body:
        answers.append((await http.post(path + "/replay", json=body)).json())
        body = {"after": answers[-1]["cursor"]} if answers[-1]["more"] else {}
    with redis_server.client() as raw:
        name = path.rpartition("/")[2]
        held = [fields[b"i"].decode() for _, fields in raw.xrange(f"ev:{{events}}:h:{name}")]

    assert [2, 2, 1] == [answer["replayed"] for answer in answers]
    assert [event["id"] for event in events] == held
    assert "cursor" not in answers[-1]


async def test_a_replay_that_means_nothing_is_refused(http: httpx.AsyncClient) -> None:
    """It names the member; an end that is 0 is one."""
    path = await endpoint(http)
    await create_session(http, a=1)
    await logged(http, 1)
    bad: list[tuple[Json, str]] = [
        ({"ids": ["a"], "until": 5}, "until"),
        ({"until": 5}, "entries"),
        ({"since": 6, "until": 5}, "until"),
        ({"since": 5, "after": "1-1"}, "entries"),
        ({"after": "latest"}, "after"),
        ({"entries": ["0-0"]}, "entries"),
    ]
    refused = [(await http.post(path + "/replay", json=body)).json() for body, _ in bad]
    ended = (await http.post(path + "/replay", json={"since": 0, "until": 0})).json()

    assert [(422, field) for _, field in bad] == [(one["status"], one["field"]) for one in refused]
    assert {"replayed": 0, "more": False} == ended


@pytest.mark.parametrize("cursor", ["0-0", "x", "1-", "18446744073709551616-0"])
async def test_a_page_that_is_none_is_refused(http: httpx.AsyncClient, cursor: str) -> None:
    """Of dead letters of an endpoint, and of the others: Redis is not asked for it."""
    paths = (await endpoint(http) + "/dead-letters", "/admin/voice/dead-letters")
    answers = [(await http.get(path, params={"cursor": cursor})).json() for path in paths]

    assert [(422, "cursor")] * 2 == [(one["status"], one["field"]) for one in answers]


async def test_a_list_of_no_kinds_is_refused(http: httpx.AsyncClient) -> None:
    """It would select everything."""
    answers = [(await http.get("/events", params={"kind": kind})) for kind in (",", " ", "")]

    assert [422, 422, 200] == [answer.status_code for answer in answers]


async def test_a_session_is_named_as_elsewhere(http: httpx.AsyncClient) -> None:
    """In any case of letters; what is none is refused, by readers and endpoints."""
    path = await endpoint(http, session_id=new_session().upper())
    sid = await create_session(http, a=1)
    await logged(http, 1)
    page = (await http.get("/events", params={"session": sid.upper()})).json()
    refused = [
        (await http.get("/events", params={"session": "phone"})).json(),
        (
            await http.post("/admin/webhooks", json={"url": "https://a.b/", "session_id": "x"})
        ).json(),
    ]

    assert [sid] == [event["session_id"] for event in page["events"]]
    assert (await http.get(path)).json()["session_id"].islower()
    assert [(422, "session"), (422, "session_id")] == [
        (one["status"], one["field"]) for one in refused
    ]
