"""Compressed bodies and answers on a whole server."""

import gzip
import json

from support.server_kit import bearer, mint, new_session, running_node


async def test_a_state_in_and_out_compressed(redis_url: str) -> None:
    """A gzip snapshot is stored; it is read back in each coding, and both forms of its tag are
    current copies."""
    state = {f"key-{number}": {"text": "value " * 10, "n": number} for number in range(200)}
    session = new_session()
    body = {"session_id": session, "user_id": "user-1", "state_data": state, "version": 1}
    async with running_node(redis_url) as node, node.http() as http:
        http.headers.update(bearer(mint("user-1")))
        created = await http.post(
            "/session/snapshot",
            content=gzip.compress(json.dumps(body).encode()),
            headers={"Content-Encoding": "gzip"},
        )
        answers = [
            await http.get(f"/session/{session}", headers={"Accept-Encoding": coding})
            for coding in ("identity", "gzip", "zstd", "deflate")
        ]
        tags = [answer.headers["etag"] for answer in answers]
        again = [
            await http.get(f"/session/{session}", headers={"If-None-Match": tag}) for tag in tags
        ]

    assert 201 == created.status_code
    assert [None, "gzip", "zstd", "deflate"] == [
        answer.headers.get("content-encoding") for answer in answers
    ]
    assert [state] * 4 == [answer.json()["state_data"] for answer in answers]
    assert ['"', "W", "W", "W"] == [tag[0] for tag in tags]
    assert [(304, tag) for tag in tags] == [
        (answer.status_code, answer.headers["etag"]) for answer in again
    ]


async def test_a_snapshot_bomb_is_too_large(redis_url: str) -> None:
    """The bound of the route counts unfolded bytes."""
    async with running_node(redis_url, snapshot_bytes=10_000) as node, node.http() as http:
        answer = await http.post(
            "/session/snapshot",
            content=gzip.compress(bytes(1 << 20)),
            headers=bearer(mint("user-1")) | {"Content-Encoding": "gzip"},
        )

    assert (413, 10_000) == (answer.status_code, answer.json()["limit"])
