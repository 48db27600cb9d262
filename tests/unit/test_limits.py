"""The limits that clients are told."""

import msgspec
import pytest

from support.auth_kit import make_settings
from syncbridge.limits import Limits


def test_limits_fit_inside_each_other() -> None:
    """A key fits a value, a value a state, an update a message; a ping comes before a timeout."""
    limits = Limits()

    assert limits.key_bytes < limits.value_bytes <= limits.state_bytes
    assert limits.changes <= limits.state_keys
    assert limits.message_bytes <= limits.snapshot_bytes
    assert limits.heartbeat_interval_ms < limits.presence_timeout * 1000
    assert limits.messages_per_second <= limits.message_burst


def test_limits_cannot_change() -> None:
    """One object serves all connections, so nobody may write to it."""
    with pytest.raises(AttributeError):
        Limits().depth = 3  # type: ignore[misc]


def test_each_limit_comes_from_a_setting() -> None:
    """No limit is left at its default when every setting is another one."""
    fields = msgspec.structs.fields(Limits)
    names = {
        "changes": "max_changes",
        "connections": "max_connections",
        "devices": "max_devices_per_session",
        "heartbeat_interval_ms": "heartbeat_interval",
    }
    values = {names.get(f.name, f.name): f.default - 1 for f in fields}
    values["heartbeat_interval"] = 24.999
    limits = make_settings(**values).limits()

    assert {f.name: f.default - 1 for f in fields} == msgspec.structs.asdict(limits)
