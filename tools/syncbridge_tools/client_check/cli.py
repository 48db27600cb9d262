"""`syncbridge client-check`: whether a client keeps what the protocol promises.

    syncbridge client-check clients/scenarios python my_driver.py

Exit code 0: it passes every scenario; 1: it does not; 2: the command cannot be carried out.
"""

import random
import shutil
import socket
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import trio
import typer

from syncbridge_tools.client_check.run import check
from syncbridge_tools.client_check.scenario import Scenario, load
from syncbridge_tools.client_check.site import Site

EXIT_FAILED = 1
EXIT_USAGE = 2
PORTS = (17_000, 20_000)

app = typer.Typer(
    name="client-check",
    help="Run a client through scenarios with faults, on a separate server and Redis.",
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True, context_settings={"ignore_unknown_options": True})
def main(
    scenarios: Annotated[Path, typer.Argument(help="A scenario file, or a folder of them.")],
    driver: Annotated[list[str], typer.Argument(help="The client's driver and its arguments.")],
    only: Annotated[str, typer.Option(help="Run only scenarios with this in their name.")] = "",
) -> None:
    """Start a server, then carry out the scenarios one after another."""
    try:
        chosen = [s for s in load(scenarios) if only in s.name]
    except ValueError as error:
        raise _unusable(str(error)) from None
    if not chosen:
        raise _unusable(f"no scenario has {only!r} in its name")
    if shutil.which(driver[0]) is None:
        raise _unusable(f"{driver[0]!r} is no program; options come before SCENARIOS")
    if failed := trio.run(_all, chosen, driver):
        typer.echo(f"{failed} of {len(chosen)} scenarios failed", err=True)
        raise typer.Exit(EXIT_FAILED)


def _unusable(why: str) -> typer.Exit:
    """Print why the command cannot be carried out, and exit."""
    typer.echo(f"error: {why}", err=True)
    return typer.Exit(EXIT_USAGE)


async def _all(scenarios: list[Scenario], command: list[str]) -> int:
    failed = 0
    with tempfile.TemporaryDirectory(prefix="check", dir="/tmp") as folder:
        site = Site(Path(folder), _free_port())
        try:
            for scenario in scenarios:
                began = time.monotonic()
                why = await check(scenario, command, site)
                failed += bool(why)
                took = time.monotonic() - began
                typer.echo(f"{'failed' if why else 'passed'} {scenario.name} ({took:.1f} s) {why}")
        finally:
            site.close()
    return failed


def _free_port() -> int:
    """A free port below the ephemeral range: a connection could take one of those while a scenario
    has killed the server."""
    for port in random.sample(range(*PORTS), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise _unusable("no free port")
