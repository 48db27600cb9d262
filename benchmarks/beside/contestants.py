"""The measured servers, and the texts of their devices for peers/live_load."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jwt

from beside.centrifugo import CONFIG
from harness.servers import Workplace
from syncbridge_tools.bench.credentials import admin_token, devices, token_mint

OURS = "SyncBridge"
HISTORY = "Centrifugo, history"
PRESENCE = "Centrifugo, presence"
MAP = "Centrifugo, map"

VALUE = "upd-%n" + "x" * 100
"""116 characters; the number makes each one a change."""
TOKEN_SECONDS = 3600
ADMIN_KEY = "JWT_REFRESH_SECRET"
"""Of the secrets: Centrifugo's key of its HTTP API."""


class Texts(NamedTuple):
    """Files for peers/live_load, which says what the fields in them are.

    Args:
        dialect: what tells that a device has joined, an error, a position, that it was resumed.
        hello, resume: one message a device. frame: publishes. post: an HTTP request.
            `post` and `resume` are empty where there is none.
    """

    dialect: tuple[str, str, str, str]
    hello: list[str]
    frame: str
    post: str = ""
    resume: Sequence[str] = ()

    def write(self, folder: Path) -> None:
        """Put them into a folder."""
        found = {
            "dialect": "\n".join(self.dialect),
            "hello": "\n".join(self.hello),
            "resume": "\n".join(self.resume),
            "frame": self.frame,
            "post": self.post,
        }
        for name, text in found.items():
            if text:
                (folder / name).write_text(text)


class Contestant(NamedTuple):
    """One server in one configuration.

    Args:
        path: of its WebSockets. command(port): starts it.
        env(place, port, redis): what it is told. texts(place, count, group, crowd): see Texts;
            `crowd` when what is published is for all connections, and nothing is to be kept.
    """

    name: str
    path: str
    command: Callable[[int], list[str]]
    env: Callable[[Workplace, int, int], dict[str, str]]
    texts: Callable[[Workplace, int, int, bool], Texts]


def contestants(centrifugo: Path | None) -> list[Contestant]:
    """All of them, ours first; only ours without the other's binary."""
    serve = [sys.executable, "-m", "syncbridge_server", "serve"]
    found = [Contestant(OURS, "/ws", lambda _: serve, our_env, our_texts)]
    if centrifugo is None:
        return found
    command = [str(centrifugo), "-c", str(CONFIG)]
    kinds = {HISTORY: history_texts, PRESENCE: presence_texts, MAP: map_texts}
    return [
        *found,
        *(
            Contestant(name, "/connection/websocket", lambda _: command, their_env, texts)
            for name, texts in kinds.items()
        ),
    ]


def our_env(place: Workplace, port: int, redis: int) -> dict[str, str]:
    """As shipped, but rate limits and access log; sessions may be as large as a crowd."""
    return {
        **place.secrets,
        "SERVER_ADDR": f"127.0.0.1:{port}",
        "REDIS_ADDR": f"127.0.0.1:{redis}",
        "SYNCBRIDGE_DATA_DIR": str(place.directory / "data"),
        "SYNCBRIDGE_RATE_LIMIT_ENABLED": "false",
        "SYNCBRIDGE_ACCESS_LOG": "false",
        "SYNCBRIDGE_MAX_DEVICES_PER_SESSION": "6000",
    }


def our_texts(place: Workplace, count: int, group: int, crowd: bool) -> Texts:
    """Of a SyncBridge. A broadcast goes to every connection by itself."""
    hello = [one.auth_message().decode() for one in devices(token_mint(), count, group)]
    place_field = '"resume":{"epoch":"%e","version":%v},"device_id"'
    payload = _compact({"key": "k%k", "value": VALUE, "operation": "SET"})
    return Texts(
        dialect=('"type":8', '"type":6', '"version":', '"resumed":true'),
        hello=hello,
        frame='{"type":5,"correlation_id":"c%n","payload":' + payload + "}",
        post=_request(
            "/admin/broadcast",
            f"Authorization: Bearer {admin_token(token_mint())}",
            _compact({"message": VALUE, "audience": "all"}),
        ),
        resume=[one.replace('"device_id"', place_field, 1) for one in hello],
    )


def their_env(place: Workplace, port: int, redis: int) -> dict[str, str]:
    """What depends on the run; the rest is in the configuration file."""
    address = f"redis://127.0.0.1:{redis}"
    return {
        "CENTRIFUGO_HTTP_SERVER_ADDRESS": "127.0.0.1",
        "CENTRIFUGO_HTTP_SERVER_PORT": str(port),
        "CENTRIFUGO_ENGINE_REDIS_ADDRESS": address,
        "CENTRIFUGO_MAP_BROKER_REDIS_ADDRESS": address,
        "CENTRIFUGO_CLIENT_TOKEN_HMAC_SECRET_KEY": place.secrets["JWT_SECRET"],
        "CENTRIFUGO_HTTP_API_KEY": place.secrets[ADMIN_KEY],
    }


def history_texts(place: Workplace, count: int, group: int, crowd: bool) -> Texts:
    """Channels with a history, subscribed by the token; a crowd's is plain."""
    return _subscribed(place, count, group, "plain:all" if crowd else "state:s%s")


def presence_texts(place: Workplace, count: int, group: int, crowd: bool) -> Texts:
    """The same with presence."""
    return _subscribed(place, count, group, "plain:all" if crowd else "present:s%s")


def _subscribed(place: Workplace, count: int, group: int, channel: str) -> Texts:
    hello, resume = [], []
    for session in (device // group for device in range(count)):
        mine = channel.replace("%s", str(session))
        token = _token(place, session, channels=[mine])
        hello.append(_compact({"id": 1, "connect": {"token": token}}))
        place_of = _compact({mine: {"recover": True, "epoch": "%e", "offset": "%v"}})
        subs = place_of.replace('"%v"', "%v")
        resume.append(f'{{"id":1,"connect":{{"token":"{token}","subs":{subs}}}}}')
    publish = _compact({"channel": channel, "data": {"key": "k%k", "value": VALUE}})
    return Texts(
        dialect=('"connect":{', '"error":{', '"offset":', '"recovered":true'),
        hello=hello,
        frame='{"id":%i,"publish":' + publish + "}",
        post=_request(
            "/api/publish",
            f"X-API-Key: {place.secrets[ADMIN_KEY]}",
            _compact({"channel": channel, "data": {"message": VALUE}}),
        ),
        resume=resume,
    )


def map_texts(place: Workplace, count: int, group: int, crowd: bool) -> Texts:
    """Map subscriptions: a command of its own, in the same frame as the first."""
    hello = []
    for session in (device // group for device in range(count)):
        connect = {"id": 1, "connect": {"token": _token(place, session)}}
        subscribe = {
            "channel": f"map:s{session}",
            "type": 1,
            "phase": 2,
            "limit": 100,
            "recoverable": True,
            "positioned": True,
        }
        hello.append(_compact(connect) + "\x1e" + _compact({"id": 2, "subscribe": subscribe}))
    publish = {"channel": "map:s%s", "type": 1, "key": "k%k", "data": {"value": VALUE}}
    return Texts(
        dialect=('"subscribe":{', '"error":{', '"offset":', '"recovered":true'),
        hello=hello,
        frame='{"id":%i,"publish":' + _compact(publish) + "}",
    )


def _token(place: Workplace, session: int, **claims: object) -> str:
    named = {"sub": f"u{session}", "exp": int(time.time()) + TOKEN_SECONDS, **claims}
    return jwt.encode(named, place.secrets["JWT_SECRET"], algorithm="HS256")


def _request(path: str, header: str, body: str) -> str:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json", header]
    return "\n".join(lines) + "\n\n" + body


def _compact(message: object) -> str:
    return json.dumps(message, separators=(",", ":"))
