"""Figures of deliveries for `/metrics`, on the node that carries events.

`syncbridge deliver` serves no HTTP; how its deliveries go stands in Redis.
"""

import structlog
import trio

from syncbridge.errors import StoreError
from syncbridge.events.cursor import parse_cursor
from syncbridge_server.events.switch import EventSwitch
from syncbridge_server.ports.endpoints import EndpointStore
from syncbridge_server.ports.events import EventStore

log = structlog.get_logger("events")

LOOK_SECONDS = 10.0
NAMES = ("endpoints", "failing", "disabled", "delivered", "failed", "dead", "held")


class EndpointFigures:
    """Reads them now and then."""

    def __init__(self, endpoints: EndpointStore, events: EventStore, switch: EventSwitch) -> None:
        self._endpoints = endpoints
        self._events = events
        self._switch = switch
        self._found: dict[str, float] = {}

    def figures(self) -> list[tuple[str, float]]:
        """For `/metrics`; zero on other nodes."""
        found = self._found if self._switch.carrying else {}
        told = [
            (name + "_total" * (name in ("delivered", "failed", "dead")), found.get(name, 0.0))
            for name in NAMES
        ]
        return [
            *told,
            ("late_seconds", found.get("late", 0.0)),
            ("behind", found.get("behind", 0.0)),
        ]

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self._switch.wait()
            try:
                if self._switch.carrying:
                    self._found = await self._read()
            except StoreError as error:
                log.debug("endpoints_unknown", reason=error.detail)
            await trio.sleep(LOOK_SECONDS)

    async def _read(self) -> dict[str, float]:
        """Sums over all endpoints; of `late` and `behind` the worst that is served."""
        found = dict.fromkeys((*NAMES, "late", "behind"), 0.0)
        last = await self._events.last()
        for endpoint in await self._endpoints.endpoints():
            status = await self._endpoints.status(endpoint.id)
            found["endpoints"] += 1
            found["delivered"] += status.delivered
            found["failed"] += status.failed
            found["dead"] += status.dead
            found["held"] += await self._endpoints.held_count(endpoint.id)
            if endpoint.disabled:
                found["disabled"] += 1
                continue
            found["failing"] += bool(status.failing_since)
            found["late"] = max(found["late"], status.late_ms / 1000)
            behind = last.number - parse_cursor(status.cursor or endpoint.start).number
            found["behind"] = max(found["behind"], behind)
        return found
