"""The catalogue of WebSocket close codes."""

from syncbridge.close_codes import CloseCode


def test_codes_are_where_they_belong() -> None:
    """Standard codes are those an endpoint may send (RFC 6455 section 7.4.1); ours are 40xx."""
    may_send = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}

    assert [] == [c for c in CloseCode if c not in may_send and not 4001 <= c <= 4099]


def test_reasons_fit_a_control_frame() -> None:
    """A close frame has 123 bytes for the reason (RFC 6455 section 5.5)."""
    assert [] == [c for c in CloseCode if not 0 < len(c.reason.encode()) <= 123]


def test_codes_are_not_aliases() -> None:
    """No two names share a number."""
    assert len(CloseCode.__members__) == len({int(c) for c in CloseCode})


def test_a_final_answer_does_not_invite_back() -> None:
    """Whoever was refused for good, or replaced, does not reconnect; whoever was unlucky does."""
    final = {"NORMAL", "AUTH_FAILED", "FORBIDDEN", "TOKEN_REVOKED", "REPLACED", "DEVICE_REMOVED"}
    passing = {"GOING_AWAY", "SERVICE_RESTART", "TOKEN_EXPIRED", "SLOW_CONSUMER", "IDLE_TIMEOUT"}

    assert [] == [name for name in final if CloseCode[name].should_reconnect]
    assert [] == [name for name in passing if not CloseCode[name].should_reconnect]
