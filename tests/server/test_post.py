"""Messages that have no protobuf form."""

from syncbridge_server.gateway.message_sender import transcoded


def test_message_without_a_protobuf_form_is_left_out() -> None:
    """What another version of the server may send is no reason to fail: it is not sent."""
    assert transcoded(b'{"type":99}') is None
    assert transcoded(b'{"type":1}') is not None
