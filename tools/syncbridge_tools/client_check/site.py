"""A server and its Redis, local processes that a scenario may kill."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import jwt
import trio

from syncbridge_server.redis.link.embedded import find_binary

START_SECONDS = 90.0
POLL = 0.05
SECRET_BYTES = 32
REDIS = "port 0\nunixsocket {socket}\nsave ''\nappendonly no\ndir {folder}\n"


class Site:
    """Processes in `folder`, whose path must be short: a socket's path has at most 107 bytes."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self._folder = folder
        self._secret = os.urandom(SECRET_BYTES).hex()
        self._redis: subprocess.Popen[bytes] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._settings: dict[str, str] = {}

    async def start(self) -> None:
        """Start both if not running; RuntimeError when the server does not answer."""
        if self._redis is None:
            self._spawn_redis()
        if not await self._ended():
            raise RuntimeError("the server does not stop")
        self._spawn()
        await self._ready()

    async def configure(self, settings: dict[str, str]) -> None:
        """Run the server with these variables; raises as `start`."""
        if self._server is None or self._settings != settings:
            self.kill()
            self._settings = settings
            await self.start()

    async def save(self) -> None:
        """Save Redis's data for `roll_back`."""
        async with await trio.open_unix_socket(str(self._redis_socket)) as stream:
            await stream.send_all(b"SAVE\r\n")
            answer = await stream.receive_some()
        if not answer.startswith(b"+OK"):
            raise RuntimeError(f"Redis does not save: {answer!r}")

    def roll_back(self) -> None:
        """Restart Redis with the data of `save`."""
        _kill(self._redis)
        self._spawn_redis()

    @property
    def _redis_socket(self) -> Path:
        return self._folder / "redis.sock"

    def _spawn_redis(self) -> None:
        config = self._folder / "redis.conf"
        config.write_text(REDIS.format(socket=self._redis_socket, folder=self._folder))
        self._redis = subprocess.Popen([find_binary(), config], stdout=subprocess.DEVNULL)

    def _spawn(self) -> None:
        log = (self._folder / "server.log").open("ab")
        command = [sys.executable, "-m", "syncbridge_server", "serve"]
        self._server = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=log)
        log.close()

    def kill(self) -> None:
        """SIGKILL to the server."""
        _kill(self._server)

    def term(self) -> None:
        """SIGTERM to the server, which drains; does not wait."""
        if self._server is not None:
            self._server.terminate()

    async def _ended(self) -> bool:
        with trio.move_on_after(START_SECONDS):
            while self._server is not None and self._server.poll() is None:  # noqa: ASYNC110
                await trio.sleep(POLL)
            return True
        return False

    async def figure(self, metric: str) -> float:
        """A metric of the server, summed over its labels."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{self.port}/metrics")).text
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return sum(float(value) for name, _, value in lines if name.split("{")[0] == metric)

    def close(self) -> None:
        """Stop both."""
        _kill(self._server)
        _kill(self._redis)

    def token(self, user: str, seconds: int) -> str:
        """An access token of a user with this lifetime in seconds."""
        now = int(time.time())
        claims = {"sub": user, "role": "user", "typ": "access", "jti": uuid.uuid4().hex}
        return jwt.encode(claims | {"iat": now, "exp": now + seconds}, self._secret, "HS256")

    async def _ready(self) -> None:
        address = f"http://127.0.0.1:{self.port}/health/ready"
        async with httpx.AsyncClient() as http:
            with trio.move_on_after(START_SECONDS):
                while True:
                    try:
                        if (await http.get(address)).status_code == httpx.codes.OK:
                            return
                    except httpx.TransportError:
                        pass
                    await trio.sleep(POLL)
        tail = (self._folder / "server.log").read_text().splitlines()[-5:]
        raise RuntimeError("the server does not start: " + "; ".join(tail))

    def _environment(self) -> dict[str, str]:
        ours = ("SYNCBRIDGE_", "JWT_", "REDIS_", "SERVER_")
        kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
        return kept | {
            "SERVER_ADDR": f"127.0.0.1:{self.port}",
            "REDIS_ADDR": f"unix://{self._redis_socket}",
            "JWT_SECRET": self._secret,
            "JWT_REFRESH_SECRET": os.urandom(SECRET_BYTES).hex(),
            "SYNCBRIDGE_DATA_DIR": str(self._folder),
            "SYNCBRIDGE_DRAIN": "2s",
            "SYNCBRIDGE_EXPIRY_WARNING": "2s",
            "SYNCBRIDGE_EXPIRY_GRACE": "1s",
            "SYNCBRIDGE_HEARTBEAT_INTERVAL": "2s",
            **self._settings,
        }


def _kill(process: "subprocess.Popen[bytes] | None") -> None:
    if process is not None and process.poll() is None:
        process.kill()
        process.wait()
