"""One trace from an update, or a webhook, to the frames on another node; sent to a stand-in."""

import uuid
from collections.abc import Iterator

import pytest
import trio

from support.events.otlp_collector import Collector
from support.redis_servers import until
from support.server_kit import bearer, mint, new_session, running_node
from support.voice.webhook_kit import event, site
from support.ws_client import Device
from syncbridge_server.telemetry.tracing import TRACING

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector, and tracing of this process that ends with the test."""
    one = Collector()
    try:
        yield one
    finally:
        TRACING.stop()
        one.close()


async def sent(collector: Collector) -> None:
    """Have everything sent that has ended."""
    provider = TRACING._provider
    assert provider is not None
    await trio.to_thread.run_sync(provider.force_flush)


async def test_from_an_update_to_the_other_nodes_frame(
    redis_url: str, collector: Collector
) -> None:
    """The device's own id of the trace; its parent; Redis; the frames of both nodes."""
    session = new_session()
    traced = {"otlp_url": collector.url, "trace_share": 1.0}
    async with running_node(redis_url, **traced) as one, running_node(redis_url, **traced) as two:
        async with await Device.open(one.port) as laptop, await Device.open(two.port) as phone:
            await laptop.auth(mint("ann"), "laptop", session_id=session)
            await phone.auth(mint("ann"), "phone", session_id=session)
            await laptop.send(5, {"key": "a", "value": 1, "operation": "SET"}, PARENT)
            await laptop.receive(5)
            await phone.receive(5)
            async with one.http() as http:
                body = {
                    "session_id": session,
                    "user_id": "ann",
                    "version": 1,
                    "state_data": {"b": 2},
                }
                header = bearer(mint("ann")) | {"traceparent": PARENT.replace("0af7", "1af7")}
                done = await http.post("/session/snapshot", json=body, headers=header)
            assert done.is_success, done.text
            await phone.receive(5)
            await sent(collector)
    over_socket = collector.of(PARENT[3:35])
    over_http = collector.of("1af7" + PARENT[7:35])

    (update,) = over_socket["STATE_UPDATE"]
    assert PARENT[36:52] == update.parent_span_id.hex()
    assert [update.span_id] == [span.parent_span_id for span in over_socket["redis apply"]]
    assert [update.span_id] * 2 == [span.parent_span_id for span in over_socket["frames"]]
    (request,) = over_http["POST"]
    assert [request.span_id] * 2 == [span.parent_span_id for span in over_http["frames"]]
    shown = {a.key: a.value.string_value or a.value.int_value for a in request.attributes}
    assert ("/session/snapshot", done.status_code) == (
        shown["http.route"],
        shown["http.response.status_code"],
    )
    assert "mood" not in str(collector.spans)


async def test_from_a_webhook_to_the_frame(collector: Collector) -> None:
    """The request that brought it, its effect by the worker, and the frames of those who watch."""
    async with site(otlp_url=collector.url, trace_share=1.0) as one:
        session = await one.open("c")
        await one.post(event("rtk", "joined", session, "ann", "p1"))
        await one.until_users("c", "ann")
        await sent(collector)
        posts = [span for span in collector.spans if span.name == "POST"]
        traces = [span.trace_id.hex() for span in posts]
        await until(lambda: any("webhook effect" in collector.of(trace) for trace in traces))
    (found,) = [t for trace in traces if "webhook effect" in (t := collector.of(trace))]

    (effect,) = found["webhook effect"]
    assert found["POST"][0].span_id == effect.parent_span_id
    assert effect.span_id in {span.parent_span_id for span in found["frames"]}


async def test_nothing_is_sampled_that_was_not_asked_for(
    redis_url: str, collector: Collector
) -> None:
    """A share of nearly nothing: also a client that says it is sampled gets no trace."""
    session = new_session()
    async with running_node(redis_url, otlp_url=collector.url, trace_share=1e-9) as node:
        async with await Device.open(node.port) as laptop:
            await laptop.auth(mint("ann"), "laptop", session_id=session)
            for _ in range(20):
                parent = f"00-{uuid.uuid4().hex}-b7ad6b7169203331-01"
                await laptop.send(5, {"key": "a", "value": parent, "operation": "SET"}, parent)
                await laptop.receive(5)
            await sent(collector)

    assert [] == collector.spans


async def test_off_means_off(redis_url: str) -> None:
    """Without an address nothing is traced and nothing carried, and the packages are not needed."""
    async with running_node(redis_url) as node, await Device.open(node.port) as laptop:
        await laptop.auth(mint("ann"), "laptop")
        await laptop.send(5, {"key": "a", "value": 1, "operation": "SET"}, PARENT)
        await laptop.receive(5)

        assert not TRACING.on
        assert "" == TRACING.current()


async def test_a_collector_that_is_away_stops_nobody(redis_url: str) -> None:
    """Spans are lost, sessions are not; the stop takes its bounded time."""
    try:
        async with (
            running_node(redis_url, otlp_url="http://127.0.0.1:1", trace_share=1.0) as node,
            await Device.open(node.port) as laptop,
        ):
            await laptop.auth(mint("ann"), "laptop", session_id=new_session())
            answer = await laptop.set("a", 1)
    finally:
        TRACING.stop()

    assert 1 == answer["payload"]["version"]
