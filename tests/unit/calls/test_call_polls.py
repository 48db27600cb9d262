"""What polls may do against a client's word: two remove, one never, a later one undoes it."""

from syncbridge.voice.call import ChannelCall
from syncbridge.voice.call_records import Event, UserJoined, UserLeft
from syncbridge.voice.evidence import Evidence, Joined, Left, Migrated, Polled, Source, Vacant

LEASE = 120_000
BOB = ("bob", "b1")
GONE = [UserLeft("ann", "verified")]


def says(connection: str, at: int, source: Source = Source.CLIENT, generation: int = 1) -> Joined:
    """Ann is there."""
    return Joined(
        generation=generation, at=at, source=source, user_id="ann", connection_id=connection
    )


def polled(at: int, *present: tuple[str, str]) -> Polled:
    """A poll that shows Bob, and these."""
    return Polled(generation=1, at=at, present=(BOB, *present))


def heard(call: ChannelCall, *evidence: Evidence) -> list[Event]:
    """What each piece changed, when it was applied 5 ms after it was true."""
    return [event for one in evidence for event in call.apply(one, one.at + 5)]


def in_call() -> ChannelCall:
    """Bob and Ann have a connection each, since 10, and Ann's client reports."""
    call = ChannelCall(0)
    bob = Joined(generation=1, at=10, source=Source.WEBHOOK, user_id="bob", connection_id="b1")
    heard(call, bob, says("a1", 10, Source.WEBHOOK), says("a1", 10))
    return call


def removed() -> ChannelCall:
    """Two polls have removed Ann."""
    call = in_call()
    assert heard(call, polled(100), says("a1", 110), polled(120), says("a1", 130)) == GONE
    return call


def test_two_polls_outweigh_a_client_that_goes_on_reporting() -> None:
    """Its media are dead: what it says before, between and after the polls changes nothing."""
    call = in_call()

    assert heard(call, says("a1", 99), polled(100), says("", 103), says("a1", 110)) == []
    assert call.doubted == {"ann"}
    assert heard(call, polled(120)) == GONE
    assert heard(call, says("a1", 130), says("", 140), says("a2", 150)) == []
    assert call.users == ("bob",)


def test_a_report_during_the_second_poll_does_not_save_it() -> None:
    """The report is newer than the beginning of the poll, and is the client's own word."""
    call = in_call()
    heard(call, polled(100))
    call.apply(says("a1", 122), 122)

    assert call.apply(polled(120), 125) == GONE


def test_one_poll_never_removes() -> None:
    """Neither repeated, nor together with one that began before it had taken effect."""
    call = in_call()

    assert heard(call, polled(100), says("a1", 106), polled(100), polled(104), polled(105)) == []
    assert call.users == ("bob", "ann")


def test_a_poll_that_shows_it_between_them_clears_it() -> None:
    """So does a webhook; then two more polls are needed."""
    for clears in (polled(120, ("ann", "a1")), polled(120, ("ann", "")), says("a1", 120)):
        sign = says("a1", 120, Source.WEBHOOK) if isinstance(clears, Joined) else clears
        call = in_call()

        assert heard(call, polled(100), sign) == []
        assert not call.doubtful
        assert heard(call, polled(140), says("a1", 150)) == []
        assert heard(call, polled(160)) == GONE


def test_old_news_of_the_provider_do_not_clear_it() -> None:
    """A webhook that is older than the poll is no answer to it."""
    call = in_call()

    assert heard(call, polled(100), says("a1", 90, Source.WEBHOOK), says("a1", 110)) == []
    assert heard(call, polled(120)) == GONE


def test_polls_that_began_before_the_first_report_do_not_count() -> None:
    """A connection that only its client knows is as old as its first report."""
    call = in_call()
    heard(call, polled(100), says("a2", 200), polled(150), polled(190))
    held = call.connections("ann")

    assert heard(call, polled(210), says("a2", 211)) == []
    assert ("a2",) == held == call.connections("ann")


def test_another_device_stays() -> None:
    """Only the connection that is not shown goes; its device's reports bring nothing back."""
    call = in_call()
    heard(call, says("a2", 50, Source.WEBHOOK))
    shown = ("ann", "a2")

    assert heard(call, polled(100, shown), says("a1", 110), polled(120, shown)) == []
    assert heard(call, says("a1", 130), says("", 140)) == []
    assert call.connections("ann") == ("a2",)


def test_two_vacant_looks_outweigh_it_too() -> None:
    """The provider's other way to say that nobody is there."""
    call = in_call()
    heard(call, Vacant(generation=1, at=100), says("a1", 110))

    assert heard(call, Vacant(generation=1, at=120))[:2] == [UserLeft("bob", "verified"), *GONE]


def test_a_later_poll_undoes_two_that_were_wrong() -> None:
    """One that is older than they are does not."""
    call = removed()

    assert heard(call, polled(119, ("ann", "a1")), says("a1", 150, Source.WEBHOOK)) == []
    assert heard(call, polled(160, ("ann", "a1"))) == [UserJoined("ann")]
    assert heard(call, says("a1", 170)) == []
    assert call.connections("ann") == ("a1",)


def test_a_proven_end_is_not_undone() -> None:
    """Neither by a later poll, nor when polls had removed the connection before."""
    call = removed()

    proof = Left(generation=1, at=95, source=Source.WEBHOOK, user_id="ann", connection_id="a1")
    assert heard(call, proof, polled(160, ("ann", "a1"))) == []


def test_the_provider_lets_the_client_be_heard_again() -> None:
    """A new connection that a webhook shows is held, and its client's reports count."""
    call = removed()

    assert heard(call, says("a2", 140, Source.WEBHOOK)) == [UserJoined("ann")]
    gone = Left(generation=1, at=150, source=Source.WEBHOOK, user_id="ann", connection_id="a2")
    heard(call, gone)
    assert heard(call, says("", 160)) == [UserJoined("ann")]


def test_a_client_that_was_silent_is_a_newcomer() -> None:
    """Reports that go on are refused for ever; after a lease without one the user may come."""
    call = removed()
    last = 130
    for _ in range(5):
        last += LEASE
        assert heard(call, says("a2", last)) == []

    assert heard(call, says("a1", last + LEASE + 1)) == []
    assert heard(call, says("a2", last + LEASE + 1)) == [UserJoined("ann")]


def test_who_left_by_its_own_word_may_come_back_at_once() -> None:
    """One poll has only confirmed it."""
    call = in_call()
    out = Left(generation=1, at=90, source=Source.CLIENT, user_id="ann", connection_id="a1")

    assert heard(call, out, polled(100)) == GONE
    assert heard(call, says("", 110)) == [UserJoined("ann")]


def test_another_room_is_another_matter() -> None:
    """After a migration the client is heard: the polls spoke of the old room."""
    call = removed()
    call.apply(Migrated(generation=2, at=140), 140)

    assert heard(call, says("a3", 150, generation=2)) == [UserJoined("ann")]


def test_an_unnamed_connection_goes_the_same_way() -> None:
    """A client that never names its connection, and that no webhook has shown."""
    call = in_call()
    heard(call, says("a1", 20, Source.WEBHOOK))
    other = Joined(generation=1, at=30, source=Source.CLIENT, user_id="cy")
    again = Joined(generation=1, at=110, source=Source.CLIENT, user_id="cy")
    ann = ("ann", "a1")

    assert heard(call, other, polled(100, ann), again, polled(120, ann), again)[1:] == [
        UserLeft("cy", "verified")
    ]
    assert heard(call, polled(130, ann, ("cy", ""))) == [UserJoined("cy")]
