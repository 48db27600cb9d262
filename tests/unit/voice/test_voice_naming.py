"""What channels are called at a provider."""

import re
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge import ids
from syncbridge.errors import SyncBridgeError
from syncbridge.voice.naming import (
    id_of_key,
    may_be_plain,
    provider_name,
    qualified_key,
    waddle_of,
)

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
ANY = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=80)


@given(ANY)
def test_a_name_fits_everywhere(channel: str) -> None:
    """Whatever the channel is called: at most 64 letters, digits, `_` and `-`."""
    assert NAME.fullmatch(provider_name(channel))


@given(ANY)
def test_a_name_is_nobody_elses(channel: str) -> None:
    """A channel that is called like the name of another one has another name."""
    name = provider_name(channel)

    assert name == channel or provider_name(name) != name


@pytest.mark.parametrize("channel", ["lobby", "A-z_09", "c" * 64])
def test_a_plain_id_is_its_own_name(channel: str) -> None:
    """So that an operator finds it."""
    assert channel == provider_name(channel)


@given(st.text(max_size=300))
def test_an_id_is_any_text_that_fits(text: str) -> None:
    """1 to 256 bytes, no control character: it is taken as it is, and else refused."""
    fits = 0 < len(text.encode()) <= 256 and not re.search(r"[\x00-\x1f\x7f-\x9f]", text)
    with nullcontext() if fits else pytest.raises(SyncBridgeError, match="channelId: 1 to 256"):
        assert text == ids.channel_id("channelId", text)


@pytest.mark.parametrize("half", ["\ud83d", "a\udfff"])
def test_half_of_a_surrogate_pair_is_no_text(half: str) -> None:
    """It could not be written anywhere."""
    with pytest.raises(SyncBridgeError):
        ids.channel_id("channelId", half)


@given(ANY, ANY)
def test_a_qualified_key_names_its_channel(waddle: str, channel: str) -> None:
    """Waddle and id come back from the key, and no such key is the plain key of an id."""
    key = qualified_key(waddle, channel)
    assert (waddle, channel) == (waddle_of(key), id_of_key(key))
    assert not may_be_plain(key)


@given(ANY, ANY, ANY, ANY)
def test_two_channels_have_two_keys(waddle: str, channel: str, other: str, another: str) -> None:
    """Keys are equal only if waddles and ids are."""
    same = (waddle, channel) == (other, another)
    assert same == (qualified_key(waddle, channel) == qualified_key(other, another))


@pytest.mark.parametrize("channel", ["%", "%/", "%a", "%/a", "%a/", "a/b", "lobby", "/%a/b"])
def test_an_id_without_a_waddle_in_it_is_its_own_key(channel: str) -> None:
    """Records of earlier versions are found under their ids."""
    assert may_be_plain(channel)
    assert (None, channel) == (waddle_of(channel), id_of_key(channel))
