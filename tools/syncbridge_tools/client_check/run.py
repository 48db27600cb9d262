"""Runs scenarios: a proxy and a process for each device, step by step."""

import uuid
from collections.abc import Sequence
from typing import Any

import trio

from syncbridge_tools.client_check.driver import Driver, DriverFailed
from syncbridge_tools.client_check.proxy import Proxy
from syncbridge_tools.client_check.scenario import Act, Scenario, Step, reached, with_round
from syncbridge_tools.client_check.site import Site

POLL = 0.03
CONNECT_SECONDS = 60.0
CONVERGE_SECONDS = 30.0


class Failed(Exception):
    """A client does not do what the scenario demands."""


class _Run:
    """A running scenario."""

    def __init__(self, scenario: Scenario, command: Sequence[str], site: Site) -> None:
        user = str(uuid.uuid4())
        self._scenario = scenario
        self._site = site
        self._mint = lambda: site.token(user, scenario.token_seconds)
        self._command = command
        self._proxies: dict[str, Proxy] = {}
        self._drivers: dict[str, Driver] = {}
        self._nursery: trio.Nursery

    async def go(self) -> None:
        """Raises Failed and DriverFailed."""
        await self._site.configure(self._scenario.settings)
        counted = {name: await self._site.figure(name) for name in self._scenario.expect.counted}
        async with trio.open_nursery() as self._nursery:
            for name in self._scenario.devices:
                await self._connect(name, name)
            for step in self._scenario.steps:
                await self._step(step)
            await self._end(counted)
            for driver in self._drivers.values():
                await driver.ask("close")
            self._nursery.cancel_scope.cancel()

    async def _connect(self, name: str, device_id: str) -> None:
        proxy = self._proxies[name] = Proxy(self._site.port)
        driver = self._drivers[name] = Driver(self._command, self._mint)
        await self._nursery.start(proxy.serve)
        await self._nursery.start(driver.run)
        await driver.ask("connect", url=f"ws://127.0.0.1:{proxy.port}/ws", device_id=device_id)
        await self._wait(Step(wait=name, status="online", within=CONNECT_SECONDS))

    async def _step(self, step: Step) -> None:
        if step.do is not None:
            await self._do(step.do, step)
        elif step.wait is not None:
            await self._wait(step)
        elif step.proxy is not None:
            self._proxies[step.proxy].fault = step.fault
        elif step.cut is not None:
            self._proxies[step.cut].cut()
        elif step.freeze is not None:
            self._drivers[step.freeze].freeze()
        elif step.thaw is not None:
            self._drivers[step.thaw].thaw()
        elif step.sleep is not None:
            await trio.sleep(step.sleep)
        elif step.connect is not None:
            await self._connect(step.connect, step.device_id)
        elif step.server is not None:
            await self._act(step.server)

    async def _act(self, act: Act) -> None:
        match act:
            case "kill":
                self._site.kill()
            case "term":
                self._site.term()
            case "start":
                await self._site.start()
            case "save":
                await self._site.save()
            case "roll_back":
                self._site.roll_back()

    async def _do(self, call: list[Any], step: Step) -> None:
        device, command, *args = call
        began = trio.current_time()
        for number in range(step.times):
            answer = await self._drivers[device].ask(command, args=with_round(args, number))
            if not answer["ok"]:
                raise Failed(f"{command} of {device}: {answer.get('code')}")
            await trio.sleep_until(began + (number + 1) * step.every_ms / 1000)

    async def _wait(self, step: Step) -> None:
        driver = self._drivers[step.wait or ""]
        look: dict[str, Any] = {}
        with trio.move_on_after(step.within):
            while True:
                look = await driver.ask("look")
                if reached(step, look, driver.tokens):
                    return
                await trio.sleep(POLL)
        raise Failed(f"{step.wait} did not meet the wait in {step.within} s: {_brief(look)}")

    async def _end(self, counted: dict[str, float]) -> None:
        expect = self._scenario.expect
        for name, driver in self._drivers.items():
            if name in expect.over:
                await self._wait(Step(wait=name, status="closed"))
                continue
            look = await self._converged(driver)
            if look["state"] != expect.state or expect.version not in (None, look["version"]):
                raise Failed(f"{name} has {_brief(look)}, not {expect.state}")
            if wrong := set(expect.never) & set(look["events"]):
                raise Failed(f"{name} received {', '.join(sorted(wrong))}")
        for name, most in expect.max_messages.items():
            if (sent := self._proxies[name].messages) > most:
                raise Failed(f"{name} sent {sent} messages, more than {most}")
        for name, least in expect.counted.items():
            if (more := await self._site.figure(name) - counted[name]) < least:
                raise Failed(f"{name} grew by {more}, expected {least} or more")

    async def _converged(self, driver: Driver) -> dict[str, Any]:
        """A device's last answer, once it has the expected state or time is up."""
        late = trio.current_time() + CONVERGE_SECONDS
        while True:
            look = await driver.ask("look")
            if look["state"] == self._scenario.expect.state or trio.current_time() > late:
                return look
            await trio.sleep(POLL)


def _brief(look: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in look.items() if name not in ("id", "ok"))


async def check(scenario: Scenario, command: Sequence[str], site: Site) -> str:
    """Why a client fails a scenario; empty when it passes."""
    why = ""
    try:
        await _Run(scenario, command, site).go()
    except* (Failed, DriverFailed) as group:
        why = str(_first(group))
    return why


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
