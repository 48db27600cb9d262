"""Two session routes the usual way: Starlette on uvicorn (httptools, uvloop) and redis.asyncio.

`app.py PORT` serves one session, which it stores at the start. `GET /session/{id}` does what ours
does for a client: it verifies the token (and remembers that it did), reads the session from Redis
with one command, checks the owner, and answers with the state's bytes as they are stored, with an
entity tag and a request id. `POST /session/incremental` checks the body and runs one script. There
is no revocation, rate limit, metrics or access log, and nobody is told of a change.
"""

import asyncio
import os
import sys
import time
import uuid
from functools import lru_cache
from pathlib import Path

import jwt
import orjson
import redis.asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

SECRET = os.environ["JWT_SECRET"]
store = redis.asyncio.Redis.from_url(os.environ["REDIS_ADDR"])
change = store.register_script((Path(__file__).parents[1] / "incremental.lua").read_text())


@lru_cache(16_384)
def subject(token: str) -> str:
    """Who holds a token; raises jwt.InvalidTokenError."""
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_aud": False})
    return str(claims["sub"])


async def read(request: Request) -> Response:
    """The whole state."""
    user = subject(request.headers["authorization"].removeprefix("Bearer "))
    session_id = request.path_params["session_id"]
    stored = await store.hgetall(f"peer:{session_id}")
    if not stored:
        return Response(b'{"code":"session_not_found"}', 404)
    if stored[b"user_id"].decode() != user:
        return Response(b'{"code":"forbidden"}', 403)
    version = int(stored[b"version"])
    body = {
        "session_id": session_id,
        "user_id": user,
        "version": version,
        "updated_at": stored[b"updated_at"].decode(),
        "state_data": orjson.Fragment(stored[b"state"]),
    }
    headers = {
        "ETag": f'"{version}"',
        "Cache-Control": "no-cache",
        "X-Request-ID": request.headers.get("x-request-id") or uuid.uuid4().hex,
    }
    return Response(orjson.dumps(body), media_type="application/json", headers=headers)


async def apply(request: Request) -> Response:
    """A change set: the keys that it sets and deletes, unless they have changed since its base."""
    user = subject(request.headers["authorization"].removeprefix("Bearer "))
    body = orjson.loads(await request.body())
    session_id = str(uuid.UUID(body["session_id"]))
    changes, deleted = body.get("changes", {}), body.get("deleted_keys", [])
    overwrite = int(body.get("resolution_strategy") in ("client_wins", "merge"))
    now = f"{time.time():.3f}"
    arguments: list[bytes | str | int] = [user, int(body["base_version"]), overwrite, now]
    arguments.append(len(changes))
    for key, value in changes.items():
        arguments += [key, orjson.dumps(value)]
    name = f"peer:{{{session_id}}}"
    keys = [f"{name}:meta", f"{name}:data", f"{name}:versions"]
    status, *rest = await change(keys, [*arguments, *deleted])
    if status != 200:
        return Response(b'{"code":"refused"}', status)
    answer = {
        "session_id": session_id,
        "version": rest[0],
        "applied": [*changes, *deleted],
        "conflicts": [],
    }
    headers = {
        "ETag": f'"{rest[0]}"',
        "X-Request-ID": request.headers.get("x-request-id") or uuid.uuid4().hex,
    }
    return Response(orjson.dumps(answer), media_type="application/json", headers=headers)


async def seed() -> None:
    """Store the one session."""
    fields = {
        "user_id": os.environ["BENCH_USER"],
        "version": 1,
        "updated_at": "2026-01-01T00:00:00.000Z",
        "state": os.environ["BENCH_STATE"],
    }
    name = f"peer:{os.environ['BENCH_SESSION']}"
    await store.hset(name, mapping=fields)
    name = f"peer:{{{os.environ['BENCH_SESSION']}}}"
    await store.hset(f"{name}:meta", mapping={"user_id": fields["user_id"], "version": 1})
    state = orjson.loads(fields["state"])
    await store.hset(f"{name}:data", mapping={key: orjson.dumps(state[key]) for key in state})
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(seed())
    app = Starlette(
        routes=[
            Route("/session/{session_id}", read),
            Route("/session/incremental", apply, methods=["POST"]),
        ]
    )
    options = {"access_log": False, "log_level": "warning"}
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", **options)
