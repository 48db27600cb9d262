"""Bytes on the wire: the frame of a change of three keys beside the frame of the whole state (k).

One session, five devices: the one that writes, and one for each encoding with and without
permessage-deflate. The numbers are lengths of frames with their headers, so they are the same on
any machine, but for the digits of times and versions.
"""

import json
import secrets
import time
import uuid

from _data import case
from harness.load import Numbers, Shortfall, Size
from harness.raw_device import AUTH, SNAPSHOT_REQUEST, RawDevice
from harness.rest_client import Rest
from harness.servers import SYNCBRIDGE, Workplace, catalogue, serving
from syncbridge.identity import Role
from syncbridge_server.auth.claims import Grant
from syncbridge_tools.bench.credentials import TOKEN_SECONDS, admin_token, token_mint

KEYS = 200
AUTH_SUCCESS, SNAPSHOT_RESPONSE, STATE_UPDATE = 8, 4, 5
WHOLE = "SyncBridge, whole state"
KINDS = {
    "json": (False, False),
    "json_deflate": (False, True),
    "proto": (True, False),
    "proto_deflate": (True, True),
}


def measure(place: Workplace, size: Size) -> dict[str, Numbers]:
    """Frame lengths. Raises Shortfall, StartError and OSError."""
    with serving(catalogue(place)[SYNCBRIDGE], place) as server:
        return _exchange(server.port)


def _exchange(port: int) -> dict[str, Numbers]:
    sample = case(KEYS)
    mint = token_mint()
    session_id, user_id = str(uuid.uuid4()), f"wire-{secrets.token_hex(4)}"
    with Rest(port, admin_token(mint)) as rest:
        rest.create(session_id, user_id, sample.state)
    found: dict[str, Numbers] = {SYNCBRIDGE: {}, WHOLE: {}}
    for name, (protobuf, deflate) in KINDS.items():
        with (
            RawDevice(port) as writer,
            RawDevice(port, protobuf=protobuf, deflate=deflate) as reader,
        ):
            for device, device_id in ((writer, "writer"), (reader, f"reader-{name}")):
                grant = Grant(user_id, Role.USER, session_id, device_id)
                token, _ = mint.mint_access(grant, time.time(), TOKEN_SECONDS)
                device.send(AUTH, {"token": token, "device_id": device_id})
                device.receive(AUTH_SUCCESS)
            reader.send(SNAPSHOT_REQUEST, {})
            whole = reader.receive(SNAPSHOT_RESPONSE)
            writer.send(STATE_UPDATE, {"changes": _changes(sample.changes)})
            update = reader.receive(STATE_UPDATE)
            _restore(writer, sample.state, sample.changes)
        if deflate != whole.compressed:
            raise Shortfall(f"{name}: compression was not what was asked for")
        found[SYNCBRIDGE][f"{name}_frame_bytes"] = update.size
        found[WHOLE][f"{name}_frame_bytes"] = whole.size
    return found


def _changes(flat: list[bytes]) -> dict[str, object]:
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {key.decode(): json.loads(value) for key, value in pairs}


def _restore(writer: RawDevice, state: bytes, flat: list[bytes]) -> None:
    """Write the old values back, so that each kind of device sees the same change."""
    old = json.loads(state)
    writer.receive(STATE_UPDATE)
    writer.send(STATE_UPDATE, {"changes": {key.decode(): old[key.decode()] for key in flat[::2]}})
    writer.receive(STATE_UPDATE)
