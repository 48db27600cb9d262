"""Builds the socket side of voice and attaches it to a gateway."""

from dataclasses import dataclass

import trio

from syncbridge.kernels import Throttle
from syncbridge.records.sessions import Notice
from syncbridge_server.gateway.gateway import Gateway
from syncbridge_server.redis.bus.bus import ALL_NODES, RedisBus
from syncbridge_server.voice.channel_writer import ChannelWriter
from syncbridge_server.voice.sockets.audience import ChannelAudience
from syncbridge_server.voice.sockets.live_calls import LiveCalls
from syncbridge_server.voice.sockets.reports import ClientReports
from syncbridge_server.voice.sockets.sockets import VoiceSockets
from syncbridge_server.voice.sockets.speaking import Speaking

SPEAKING = "speaking"
"""Kind of the notices between nodes about speaking states."""


@dataclass(frozen=True)
class VoiceGateway:
    """The parts of voice that serve the sockets of a gateway."""

    live_calls: LiveCalls
    audience: ChannelAudience
    speaking: Speaking
    reports: ClientReports
    sockets: VoiceSockets

    def figures(self) -> list[tuple[str, float]]:
        """Values for the metrics."""
        return [
            ("channels", len(self.live_calls.calls)),
            ("channels_refused_total", self.live_calls.refused),
            ("reports_waiting", self.reports.waiting),
            ("speakers_held", self.speaking.held),
            ("speakers_refused_total", self.speaking.refused),
            ("speaking_notices_total", self.speaking.shared),
        ]

    async def run(self) -> None:
        """Run the parts for ever."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.live_calls.run)
            nursery.start_soon(self.speaking.run)
            nursery.start_soon(self.reports.run)


def attach(
    gateway: Gateway, writer: ChannelWriter, bus: RedisBus, *, throttle: Throttle | None = None
) -> VoiceGateway:
    """Attach voice to a gateway. `throttle`: see `Speaking`."""
    live_calls = LiveCalls(writer.channels, bus, isolation=writer.isolation)
    audience = ChannelAudience(gateway.hub, gateway.sender, live_calls)

    def share(data: bytes) -> None:
        if not bus.alone:
            bus.tell(ALL_NODES, Notice(SPEAKING, "", data))

    speaking = Speaking(
        live_calls,
        audience.tell,
        share,
        gateway.hub.flush,
        node=gateway.node,
        monotonic=gateway.monotonic,
        throttle=throttle,
    )
    bus.on_notice(SPEAKING, lambda notice: speaking.receive(notice.data))
    reports = ClientReports(writer, live_calls, gateway.hub.flush)
    sockets = VoiceSockets(
        gateway.sender,
        live_calls,
        audience,
        speaking,
        reports,
        flush=gateway.hub.flush,
        lease_ms=writer.limits.call.lease_ms,
        monotonic=gateway.monotonic,
    )
    gateway.voice.attach(sockets)
    return VoiceGateway(live_calls, audience, speaking, reports, sockets)
