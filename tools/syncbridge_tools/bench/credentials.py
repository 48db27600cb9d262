"""The devices of a load run and their AUTH messages.

Every `devices` consecutive clients share a session, and each session has its own user. Session ids
are new in each run, so a run never meets the state of an earlier one.
"""

import json
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from syncbridge.identity import Role
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.claims import Grant
from syncbridge_server.auth.tokens import Tokens
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.configuration.secrets_file import with_dev_secrets
from syncbridge_server.settings import ConfigError, Settings

TOKEN_SECONDS = 3600.0


class Device(NamedTuple):
    """One client: the first `device` of each session is its sender."""

    user_id: str
    session_id: str
    device_id: str
    token: str

    def auth_message(self) -> bytes:
        """AUTH (type 7) as compact JSON."""
        payload = {
            "token": self.token,
            "device_id": self.device_id,
            "device_type": "bench",
            "device_name": self.device_id,
        }
        return json.dumps({"type": 7, "payload": payload}, separators=(",", ":")).encode()


def token_mint(settings: Settings | None = None) -> Tokens:
    """Signs as the server does: JWT_SECRET, or the secrets that `syncbridge dev` keeps here.

    Raises ConfigError when there is no secret.
    """
    found = with_dev_secrets(settings or load_settings(), create=False)
    if not found.jwt_secret.get_secret_value() and found.jwt_algorithm == "HS256":
        raise ConfigError("JWT_SECRET is not set, and no secret of `syncbridge dev` is here")
    if not found.jwt_refresh_secret.get_secret_value():
        found = found.with_values(jwt_refresh_secret=uuid.uuid4().hex * 2)
    return build_tokens(found)[0]


def devices(tokens: Tokens, count: int, per_session: int) -> Iterator[Device]:
    """`count` devices in sessions of `per_session`. About 15 µs each."""
    now = time.time()
    session_id = user_id = ""
    for index in range(count):
        if index % per_session == 0:
            session_id = str(uuid.uuid4())
            user_id = f"bench-{session_id[:8]}"
        device_id = f"device-{index}"
        grant = Grant(user_id, Role.USER, session_id, device_id)
        token, _ = tokens.mint_access(grant, now, TOKEN_SECONDS)
        yield Device(user_id, session_id, device_id, token)


def admin_token(tokens: Tokens) -> str:
    """For `POST /admin/broadcast`."""
    return tokens.mint_access(Grant("bench-admin", Role.ADMIN), time.time(), TOKEN_SECONDS)[0]
