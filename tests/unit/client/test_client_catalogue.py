"""What the Python client shares with the server is equal on both sides, and not imported."""

import runpy

import pytest

from support.source_tree import CLIENT, CLIENT_ROOT, ROOT
from syncbridge import close_codes, errors, limits, messages
from syncbridge_client import catalogue, transport, wire
from syncbridge_server.listener.contract import SUBPROTOCOL_JSON


def test_the_catalogue_is_the_servers() -> None:
    """`python scripts/client_catalogue.py > .../catalogue.py` was run."""
    script = runpy.run_path(str(ROOT / "scripts" / "client_catalogue.py"))
    page = ROOT / CLIENT_ROOT / CLIENT / "catalogue.py"

    assert script["catalogue"]() == page.read_text("utf-8")


def test_the_codes_say_the_same() -> None:
    """Error codes, close codes, message types and bounds, by value."""
    ours = {c.name: c.value for c in catalogue.ErrorCode}
    closing = {c.name: (int(c), c.reason, c.should_reconnect) for c in catalogue.CloseCode}

    assert ours == {c.name: c.value for c in errors.ErrorCode}
    assert closing == {
        c.name: (int(c), c.reason, c.should_reconnect) for c in close_codes.CloseCode
    }
    assert list(catalogue.MessageType) == list(messages.MessageType)
    assert repr(catalogue.Limits()) == repr(limits.Limits())
    assert transport.SUBPROTOCOL == SUBPROTOCOL_JSON


@pytest.mark.parametrize("kind", [int(messages.MessageType.STATE_UPDATE), messages.VOICE_JOIN])
def test_the_envelope_is_the_servers(kind: int | str) -> None:
    """What the client writes, the server reads as type, payload and correlation id; and back."""
    sent = wire.write(kind, {"key": "mood"}, "17")
    read = messages.decode_envelope(sent)
    back = wire.read(sent)

    assert (read.type, read.correlation_id) == (kind, "17")
    assert (back.type, bytes(back.payload)) == (read.type, bytes(read.payload))
