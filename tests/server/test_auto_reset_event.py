"""An event that its waiter clears."""

import trio
import trio.testing

from syncbridge_server.auto_reset_event import AutoResetEvent


async def test_each_wait_needs_a_set_of_its_own() -> None:
    """Several sets before a wait count once, and the next wait waits again."""
    event = AutoResetEvent()
    event.set()
    event.set()
    await event.wait()

    with trio.move_on_after(0) as second:
        await event.wait()

    assert second.cancelled_caught


async def test_a_cancelled_wait_keeps_what_was_set() -> None:
    """Whoever is cancelled takes nothing away from the next waiter."""
    event = AutoResetEvent()
    event.set()
    with trio.CancelScope() as scope:
        scope.cancel()
        await event.wait()
    assert scope.cancelled_caught

    with trio.fail_after(5):
        await event.wait()


async def test_a_set_wakes_the_waiter() -> None:
    """A task that waits goes on when another one sets the event."""
    event, woken = AutoResetEvent(), []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await event.wait()
            woken.append(True)

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert [] == woken
        event.set()

    assert [True] == woken
