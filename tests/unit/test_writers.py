"""Who wrote a key last, by what stands beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.records.writers import entry_of, writer_of

EPOCH = "0a1b2c3d4e5f"
devices = st.text(min_size=1, max_size=64)


@given(st.integers(1, 2**53), devices)
def test_an_entry_of_the_key_names_its_device(version: int, device: str) -> None:
    """Whatever text the device's id is, spaces included."""
    assert device == writer_of(entry_of(version, EPOCH, device), version, EPOCH)


@given(st.integers(1, 300), st.integers(1, 300), devices)
def test_an_entry_of_another_version_tells_nothing(mine: int, other: int, device: str) -> None:
    """Somebody who keeps no entries has changed the key since; 1 is not the beginning of 12."""
    found = writer_of(entry_of(mine, EPOCH, device), other, EPOCH)

    assert found == (device if mine == other else "")


@pytest.mark.parametrize(
    "entry", [None, b"", b"7", b"7 0a1b", b"7 ffff phone", b"x", b"7 0a1b \xff", b" 0a1b phone"]
)
def test_what_is_no_entry_of_this_history_tells_nothing(entry: bytes | None) -> None:
    """Nothing there, another epoch, or bytes that cannot be one."""
    assert "" == writer_of(entry, 7, EPOCH)
