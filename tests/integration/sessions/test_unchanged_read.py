"""A node that has a session's place but not its state, and reads that nothing has changed."""

from support.redis_servers import until
from support.server_kit import mint, new_session, running_node
from support.ws_client import Device


async def test_no_difference_is_not_an_empty_state(redis_url: str) -> None:
    """A device resumed, a doubt was resolved; then a newcomer is given the whole state."""
    session, token = new_session(), mint("ann")
    async with running_node(redis_url) as one, await Device.open(one.port) as device:
        await device.auth(token, "d1", session_id=session)
        place = (await device.set("a", 1))["payload"]
    async with running_node(redis_url) as other, await Device.open(other.port) as device:
        since = {name: place[name] for name in ("epoch", "version", "lineage")}
        welcome = await device.auth(token, "d1", session_id=session, resume=since)
        assert welcome["resumed"]
        fanout = other.server.gateway.fanout
        asked = fanout.mended
        fanout.doubts.add(session)
        fanout.wanted.set()
        await until(lambda: fanout.mended > asked and not fanout.reads)
        async with await Device.open(other.port) as newcomer:
            assert (await newcomer.auth(token, "d2", session_id=session))["state_data"] == {"a": 1}
