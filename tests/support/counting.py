"""Devices that count in Redis through a server: their acknowledgements, and the stored number."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import httpx
import trio
from wsproto.utilities import ProtocolError

from support.server_kit import bearer, mint, new_session
from support.ws_client import Closed, Device

PAUSE = 0.05
STORED_SECONDS = 60.0
BROKEN = (*(OSError, Closed, ProtocolError), *(trio.BrokenResourceError, trio.ClosedResourceError))


@dataclass
class Counter:
    """Adds 1 again and again, over a real socket; what has no clear answer is asked again.

    Attributes:
        acknowledged: how many increments were acknowledged.
        unclear: how many answers were `store_unavailable`.
    """

    port: int
    name: str
    session: str = field(default_factory=new_session)
    acknowledged: int = 0
    unclear: int = 0

    async def run(self, over: Callable[[], bool]) -> None:
        """Until `over`, and until the last one is acknowledged; on new connections as needed."""
        begun = self.acknowledged
        while not over() or begun > self.acknowledged:
            with suppress(*BROKEN):
                async with await Device.open(self.port) as device:
                    await self._join(device)
                    while not over() or begun > self.acknowledged:
                        begun = self.acknowledged + 1
                        await self._add(device, begun)
            await trio.sleep(PAUSE)

    async def add(self, count: int) -> list[str]:
        """Send `count` increments, each once; returns the error codes, "" for an
        acknowledgement."""
        async with await Device.open(self.port) as device:
            await self._join(device)
            first = self.acknowledged + 1
            return [await self._ask(device, number) for number in range(first, first + count)]

    async def _join(self, device: Device) -> None:
        token = mint("ann", session=self.session, device=self.name)
        payload = {"token": token, "device_id": self.name, "session_id": self.session}
        while (answer := await device.request(7, payload | {"stream": "one"}))["type"] != 8:
            assert answer["payload"]["code"] == "store_unavailable", answer
            await trio.sleep(PAUSE)

    async def _add(self, device: Device, number: int) -> None:
        while code := await self._ask(device, number):
            assert code in ("store_unavailable", "rate_limited"), code
            self.unclear += code == "store_unavailable"
            await trio.sleep(PAUSE)

    async def _ask(self, device: Device, number: int) -> str:
        payload = {"key": "n", "operation": "INCR", "value": 1, "stream": "one", "seq": number}
        answer = await device.request(5, payload, f"{self.name}.{number}")
        if answer["type"] == 6:
            return str(answer["payload"]["code"])
        self.acknowledged = number
        return ""

    async def stored(self) -> int:
        """What Redis has; asked again while it is away, as any caller would."""
        async with httpx.AsyncClient(timeout=10.0) as http:
            url = f"http://127.0.0.1:{self.port}/session/{self.session}"
            with trio.fail_after(STORED_SECONDS):
                answer = await http.get(url, headers=bearer(mint("ann")))
                while answer.status_code == 503:
                    await trio.sleep(float(answer.headers["retry-after"]))
                    answer = await http.get(url, headers=bearer(mint("ann")))
        return int(answer.raise_for_status().json()["state_data"]["n"])
