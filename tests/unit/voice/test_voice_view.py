"""The view of a channel, and the steps between two of them."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncbridge.voice import reporting, view
from syncbridge.voice.call_records import Phase
from syncbridge.voice.channel import Channel, ChannelLimits
from syncbridge.voice.holding import ClientReport
from syncbridge.voice.records import ChannelConfig, ChannelRecord
from syncbridge.voice.view import Head, ParticipantView, View

users = st.sampled_from(["ann", "bob", "eve"])
devices = st.sampled_from(["", "phone", "tablet"])
people = st.builds(
    ParticipantView,
    st.integers(0, 3),
    device_id=devices,
    moving_to=devices,
    muted=st.booleans(),
    video=st.booleans(),
)
heads = st.builds(
    Head, st.sampled_from(["s1", "s2"]), st.integers(1, 2), st.sampled_from(Phase), devices
)
views = st.none() | st.builds(View, heads, st.dictionaries(users, people))


@given(views, views)
def test_a_difference_leads_from_one_view_to_the_other(old: View | None, new: View | None) -> None:
    """Also after it has travelled as JSON; none is made where nothing changed."""
    change = view.difference(old, new)

    if change is None:
        assert old == new
        return
    message = msgspec.json.decode(msgspec.json.encode(view.to_message(change)))
    assert new == view.applied(old, view.from_message(message))


@given(views, views)
def test_what_is_told_says_who_came_and_went(old: View | None, new: View | None) -> None:
    """A listener who takes in the messages has the participants of the new view."""
    here = set(old.participants) if old is not None else set()
    muted = {u for u, p in old.participants.items() if p.muted} if old is not None else set()
    for message in view.missed_messages("c", old, new):
        state, who = message.get("state"), str(message.get("userId"))
        if state == "connected":
            assert who not in here
            here.add(who)
        elif state == "disconnected":
            here.remove(who)
            muted.discard(who)
        elif state == "muted":
            muted.add(who)
        elif state == "unmuted":
            muted.discard(who)

    after = new.participants if new is not None else {}
    assert set(after) == here
    assert {u for u, p in after.items() if p.muted} == muted


def test_a_change_without_its_beginning_is_refused() -> None:
    """Only a whole view, or an end, can follow on nothing."""
    change = view.ViewChange(gone=["ann"])

    with pytest.raises(ValueError, match="missing"):
        view.applied(None, change)


def test_a_channel_is_shown_from_its_opening_to_its_end() -> None:
    """Nothing before the provider has the room, and nothing after the call."""
    channel = Channel(ChannelRecord("c"), ChannelLimits())
    channel.opening(1, ChannelConfig(), "w")
    assert view.of_record(channel.dump()) is None

    channel.opened("s1", 2)
    reporting.report(channel, ClientReport("ann", "phone", "sid", muted=True), 3)
    shown = view.of_record(channel.dump())
    assert shown == View(
        Head("s1", 1, Phase.ACTIVE, "w"),
        {"ann": ParticipantView(3, "phone", "sid", muted=True)},
    )
    channel.end(4, "ended")
    assert view.of_record(channel.dump()) is None


def test_devices_are_shown_to_their_user_alone() -> None:
    """Everybody sees who speaks and who is muted; the device is seen by its user."""
    shown = View(Head("s1", 1, Phase.ACTIVE), {"ann": ParticipantView(3, "phone", "sid")})

    own = view.public("c", shown, "ann", ["ann"])["participants"]
    others = view.public("c", shown, "bob")["participants"]
    assert "phone" == own[0]["deviceId"]
    assert own[0]["speaking"]
    assert {
        "userId": "ann",
        "state": "connected",
        "joinedAt": 3,
        "muted": False,
        "video": False,
        "speaking": False,
    } == others[0]


def test_who_is_muted_is_not_shown_as_speaking() -> None:
    """Also while the last change of the indicator has not gone out."""
    shown = View(Head("s1", 1, Phase.ACTIVE), {"ann": ParticipantView(3, muted=True)})

    ann = view.public("c", shown, "bob", ["ann"])["participants"][0]
    assert (True, False) == (ann["muted"], ann["speaking"])
