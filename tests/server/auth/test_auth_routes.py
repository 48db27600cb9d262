"""POST /auth/token, /auth/refresh, /auth/revoke over ASGI, and who a caller is taken for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from support.auth_kit import NOW, SESSION, Clock, MemoryCommands, access_token, make_authentication
from syncbridge.identity import Role
from syncbridge_server.auth.assembly import Authentication
from syncbridge_server.http.auth import AuthRoutes
from syncbridge_server.http.support.problem import exception_handlers


class Server:
    """The three routes and /whoami over one authentication."""

    def __init__(self, auth: Authentication, http: httpx.AsyncClient) -> None:
        self.auth = auth
        self.http = http

    async def post(self, path: str, body: Any, token: str = "") -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return await self.http.post(path, json=body, headers=headers)

    async def whoami(self, token: str = "", **headers: str) -> httpx.Response:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return await self.http.get("/whoami", headers=headers)


@asynccontextmanager
async def server(
    peer: str = "127.0.0.1", commands: MemoryCommands | None = None, **values: Any
) -> AsyncIterator[Server]:
    """A server whose callers come from `peer`."""
    auth = make_authentication(Clock(), commands, **values)
    await auth.revocations.load()

    async def whoami(request: Request) -> JSONResponse:
        caller = await auth.bearer(request)
        return JSONResponse({"user": caller.user_id, "role": caller.role})

    routes = [*AuthRoutes(auth).routes(), Route("/whoami", whoami)]
    app = Starlette(routes=routes, exception_handlers=exception_handlers)
    transport = httpx.ASGITransport(app, client=(peer, 5))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield Server(auth, http)


def code(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a problem document."""
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    return answer.status_code, problem["code"]


ALICE = access_token("alice", family="f1")
BOB = access_token("bob")
SERVICE = access_token("billing", Role.SERVICE)
ADMIN = access_token("root", Role.ADMIN)


async def test_token_pair_for_a_user() -> None:
    """A service gets a pair whose access token says what was asked for."""
    async with server() as s:
        body = {"user_id": "carol", "session_id": SESSION, "device_id": "d", "ttl": 60}
        body["voice"] = [{"waddle": "w", "channel": "*", "permissions": ["speak"]}]
        answer = await s.post("/auth/token", body, SERVICE)

        assert 200 == answer.status_code
        assert "no-store" == answer.headers["cache-control"]
        pair = answer.json()
        assert ("Bearer", 60, 604_800) == (
            pair["token_type"],
            pair["expires_in"],
            pair["refresh_expires_in"],
        )
        identity = s.auth.authenticator.verify(pair["access_token"])
        assert ("carol", Role.USER, SESSION) == identity_start(identity)
        assert ("w", "*") == (identity.voice[0].waddle, identity.voice[0].channel)
        assert NOW + 60 == identity.expires_at


def identity_start(identity: Any) -> tuple[str, Role, str]:
    """User, role, session."""
    return identity.user_id, identity.role, identity.session_id


@pytest.mark.parametrize(
    ("token", "role", "expected"),
    [
        ("", "user", (401, "auth_required")),
        (ALICE, "user", (403, "insufficient_role")),
        (SERVICE, "admin", (403, "insufficient_role")),
        (SERVICE, "viewer", (403, "insufficient_role")),
        ("garbage", "user", (401, "token_invalid")),
    ],
)
async def test_who_may_mint(token: str, role: str, expected: tuple[int, str]) -> None:
    """Users mint nothing, a service no admin and no viewer, and 401 names the scheme."""
    async with server() as s:
        answer = await s.post("/auth/token", {"user_id": "x", "role": role}, token)

        assert expected == code(answer)
        assert ("www-authenticate" in answer.headers) is (answer.status_code == 401)


async def test_an_admin_mints_admins() -> None:
    """Role admin comes from an admin."""
    async with server() as s:
        answer = await s.post("/auth/token", {"user_id": "x", "role": "admin"}, ADMIN)

        identity = s.auth.authenticator.verify(answer.json()["access_token"])
        assert Role.ADMIN is identity.role


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", (400, "invalid_json")),
        (b"{", (400, "invalid_json")),
        (b"\xff", (400, "invalid_json")),
        (b"[]", (422, "invalid_field")),
        (b"{}", (422, "invalid_field")),
        (b'{"user_id": 3}', (422, "invalid_field")),
        (b'{"user_id": ""}', (422, "invalid_field")),
        (b'{"user_id": "\\u0000"}', (422, "invalid_field")),
        (b'{"user_id": "x", "role": "root"}', (422, "invalid_field")),
        (b'{"user_id": "x", "ttl": 0}', (422, "invalid_field")),
        (b'{"user_id": "x", "ttl": 1e999}', (422, "invalid_field")),
        (b'{"user_id": "x", "rolle": "user"}', (422, "invalid_field")),
        (b'{"user_id": "x", "session_id": "s"}', (422, "invalid_field")),
        (b'{"user_id": "x", "name": "a\\u0000"}', (422, "invalid_field")),
        (b"[" * 10_000, (400, "too_deep")),
        (b'{"user_id": "' + b"x" * 17_000 + b'"}', (413, "too_large")),
    ],
)
async def test_bad_bodies(content: bytes, expected: tuple[int, str]) -> None:
    """Each bad body gets its own status, and never a 500."""
    async with server() as s:
        for path in ("/auth/token", "/auth/refresh", "/auth/revoke"):
            headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": "application/json"}
            answer = await s.http.post(path, content=content, headers=headers)

            status = code(answer)
            assert status == expected or (path != "/auth/token" and status[0] in (401, 422))


async def test_refresh_rotates_and_ends_a_stolen_family() -> None:
    """The new pair works; the old refresh token revokes it."""
    async with server() as s:
        first = (await s.post("/auth/token", {"user_id": "alice"}, SERVICE)).json()
        body = {"refresh_token": first["refresh_token"]}
        second = (await s.post("/auth/refresh", body)).json()
        assert 200 == (await s.whoami(second["access_token"])).status_code

        assert (401, "token_reused") == code(await s.post("/auth/refresh", body))
        assert (401, "token_revoked") == code(await s.whoami(second["access_token"]))
        body = {"refresh_token": second["refresh_token"]}
        assert (401, "token_revoked") == code(await s.post("/auth/refresh", body))


@pytest.mark.parametrize(
    ("caller", "body", "status"),
    [
        (ALICE, {"user_id": "alice"}, 200),
        (ALICE, {"user_id": "bob"}, 403),
        (ALICE, {"family": "f1"}, 200),
        (ALICE, {"family": "f2"}, 403),
        (ALICE, {"jti": "somebody-else"}, 403),
        (ALICE, {"device_id": "phone"}, 200),
        (ALICE, {"device_id": "phone", "user_id": "bob"}, 403),
        (SERVICE, {"user_id": "alice"}, 200),
        (SERVICE, {"jti": "any"}, 200),
        (SERVICE, {"device_id": "phone", "user_id": "alice"}, 200),
        (ADMIN, {"device_id": "phone"}, 200),
        (ADMIN, {}, 422),
        (ADMIN, {"jti": "a", "user_id": "b"}, 422),
        (ADMIN, {"user_id": "x" * 65}, 422),
        (ADMIN, {"user_id": "a\nb"}, 422),
        ("", {"user_id": "alice"}, 401),
    ],
)
async def test_who_may_revoke_what(caller: str, body: dict[str, str], status: int) -> None:
    """A user only their own, service and admin anything that is named well."""
    async with server() as s:
        answer = await s.post("/auth/revoke", body, caller)

        assert status == answer.status_code
        assert (status == 200) is (len(s.auth.revocations) == 1)


async def test_a_users_device_rule_leaves_other_users_alone() -> None:
    """Alice revoking a device id does not touch Bob's device of the same name."""
    alice, bob = (access_token(name, device_id="phone") for name in ("alice", "bob"))
    async with server() as s:
        answer = await s.post("/auth/revoke", {"device_id": "phone"}, alice)

        told = answer.json()
        assert "user_id" in told.pop("note")
        assert {"revoked": "device_id", "value": "phone", "before": NOW} == told
        assert (401, "token_revoked") == code(await s.whoami(alice))
        assert 200 == (await s.whoami(bob)).status_code


async def test_a_user_may_revoke_the_token_in_hand() -> None:
    """Logging out with the own jti."""
    async with server() as s:
        jti = s.auth.authenticator.verify(ALICE).jti

        assert 200 == (await s.post("/auth/revoke", {"jti": jti}, ALICE)).status_code
        assert (401, "token_revoked") == code(await s.whoami(ALICE))
        assert 200 == (await s.whoami(BOB)).status_code


BOUND = {"session": {"session_id": SESSION}, "device": {"device_id": "phone"}}


@pytest.mark.parametrize("role", [Role.USER, Role.SERVICE, Role.ADMIN])
@pytest.mark.parametrize("name", BOUND)
async def test_a_bound_token_takes_back_itself_and_its_login(name: str, role: Role) -> None:
    """And of other tokens only those of its device, when that is what it is bound to."""
    async with server() as s:
        caller = access_token("alice", role, family="f9", **BOUND[name])
        refused = [
            code(await s.post("/auth/revoke", body, caller))
            for body in (
                {"user_id": "alice"},
                {"device_id": "watch"},
                *([{"jti": "other"}, {"family": "f1"}] if role is not Role.USER else []),
            )
        ]
        device = await s.post("/auth/revoke", {"device_id": "phone", "user_id": "alice"}, caller)
        again = access_token("alice", role, NOW + 1, family="f9", **BOUND[name])
        login = await s.post("/auth/revoke", {"family": "f9"}, again)
        after = code(await s.whoami(again))

        assert {(403, f"wrong_{name}")} == set(refused)
        assert (200 if name == "device" else 403) == device.status_code
        assert (200, (401, "token_revoked")) == (login.status_code, after)


async def test_a_viewer_takes_back_nothing() -> None:
    """It only reads, its own token included."""
    async with server() as s:
        viewer = access_token("eve", Role.VIEWER, family="f5")
        answer = await s.post("/auth/revoke", {"family": "f5"}, viewer)

        assert (403, "insufficient_role") == code(answer)


async def test_a_revoked_device_is_known_by_its_header() -> None:
    """X-Device-ID names the device when the token names none."""
    async with server() as s:
        await s.post("/auth/revoke", {"device_id": "phone"}, ALICE)
        token = access_token("alice")

        answer = await s.whoami(token, **{"X-Device-ID": "phone"})

        assert (401, "token_revoked") == code(answer)
        assert 200 == (await s.whoami(token)).status_code


@pytest.mark.parametrize("device", ["Küche 📱", "кухня", "caf\xe9"])
async def test_a_device_id_in_any_script_is_known_by_its_header(device: str) -> None:
    """X-Device-ID is UTF-8, as ids are everywhere; bytes that are not are ISO 8859-1."""
    async with server() as s:
        await s.post("/auth/revoke", {"device_id": device}, ALICE)
        coding = "latin-1" if device == "caf\xe9" else "utf-8"

        token = access_token("alice")
        told = [
            await s.whoami(token, **{"X-Device-ID": each})  # type: ignore[arg-type]
            for each in (device.encode(coding), b"another")
        ]

        assert [401, 200] == [answer.status_code for answer in told]


async def test_redis_away_is_503_with_retry_after() -> None:
    """Minting and revoking without Redis answer 503 and say when to come back."""
    commands = MemoryCommands()
    async with server(commands=commands) as s:
        commands.away = True
        for path, body in (("/auth/token", {"user_id": "x"}), ("/auth/revoke", {"jti": "x"})):
            answer = await s.post(path, body, SERVICE)

            assert (503, "store_unavailable") == code(answer)
            assert "1" == answer.headers["retry-after"]


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic YTpi", f"Token {ALICE}", ALICE, f"Bearer {ALICE} x"]
)
async def test_bad_authorization_header(value: str) -> None:
    """Anything but `Bearer <token>` is refused, also in development."""
    async with server(dev=True) as s:
        answer = await s.http.get("/whoami", headers={"Authorization": value})

        assert (401, "token_invalid") == code(answer)


async def test_two_authorization_headers_are_refused() -> None:
    """Nobody has to guess which one a proxy would have read."""
    async with server() as s:
        pair = [("Authorization", f"Bearer {ALICE}"), ("Authorization", f"Bearer {ADMIN}")]

        assert (401, "token_invalid") == code(await s.http.get("/whoami", headers=pair))


async def test_scheme_is_not_case_sensitive() -> None:
    """RFC 9110 section 11.1."""
    async with server() as s:
        answer = await s.http.get("/whoami", headers={"Authorization": f"bearer {ALICE}"})

        assert "alice" == answer.json()["user"]


async def test_token_in_the_url_is_never_read() -> None:
    """No query parameter authenticates."""
    async with server() as s:
        answer = await s.http.get("/whoami", params={"token": ADMIN, "access_token": ADMIN})

        assert (401, "auth_required") == code(answer)


@pytest.mark.parametrize(
    ("peer", "headers", "allowed"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {"Host": "[::1]:8080"}, True),
        ("127.0.0.1", {"Host": "127.0.0.1:8080"}, True),
        ("127.0.0.1", {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}, True),
        ("127.0.0.1", {"Sec-Fetch-Site": "same-origin"}, True),
        ("127.0.0.1", {"Sec-Fetch-Site": "none"}, True),
        ("127.0.0.1", {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:3000"}, True),
        ("127.0.0.1", {"Origin": "http://localhost:3000"}, False),
        ("127.0.0.1", {"Host": "localhost:8080", "Origin": "http://127.0.0.1:8080"}, False),
        ("127.0.0.1", {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}, False),
        ("127.0.0.1", {"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, False),
        ("127.0.0.1", {"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, False),
        ("127.0.0.1", {"Host": "evil.example", "Sec-Fetch-Site": "same-origin"}, False),
        ("10.0.0.7", {}, False),
        ("10.0.0.7", {"X-Forwarded-For": "127.0.0.1"}, False),
        ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, False),
        ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, False),
        *(
            ("127.0.0.1", {name: "127.0.0.1"}, False)
            for name in (
                "Via",
                "X-Real-IP",
                "X-Forwarded-Proto",
                "X-Forwarded-Host",
                "X-Forwarded-Anything",
                "X-Original-Forwarded-For",
                "CF-Connecting-IP",
                "CF-Ray",
                "True-Client-IP",
                "X-Client-IP",
                "X-Cluster-Client-IP",
                "Fastly-Client-IP",
                "CDN-Loop",
            )
        ),
        ("127.0.0.1", {"Host": "evil.example"}, False),
        ("127.0.0.1", {"Host": "localhost.evil.example"}, False),
        ("127.0.0.1", {"Host": "["}, False),
        ("127.0.0.1", {"Origin": "https://evil.example"}, False),
        ("127.0.0.1", {"Origin": "null"}, False),
        ("127.0.0.1", {"Sec-Fetch-Site": "cross-site"}, False),
    ],
)
async def test_developer_is_local_and_no_web_page(
    peer: str, headers: dict[str, str], allowed: bool
) -> None:
    """Without a token only a caller that is surely on this machine is admin, and only in dev."""
    async with server(peer, dev=True) as s:
        answer = await s.whoami(**headers)
        if allowed:
            assert {"user": "developer", "role": "admin"} == answer.json()
        else:
            assert (401, "auth_required") == code(answer)
    async with server(peer) as s:
        assert (401, "auth_required") == code(await s.whoami(**headers))


async def test_a_token_counts_in_development_too() -> None:
    """A local caller with a token is who the token says."""
    async with server(dev=True) as s:
        assert {"user": "alice", "role": "user"} == (await s.whoami(ALICE)).json()
        assert (401, "token_invalid") == code(await s.whoami("garbage"))
