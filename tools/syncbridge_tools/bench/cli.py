"""`syncbridge bench`: connect thousands of devices to a running server and measure it.

Every command connects first. Exit code 0: everything went through; 1: something was refused, lost
or closed, and the figures say what; 2: the command itself cannot be carried out.
"""

import resource
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from syncbridge_core import swarm
from syncbridge_server.settings import ConfigError
from syncbridge_tools.bench import report
from syncbridge_tools.bench.credentials import admin_token, devices, token_mint
from syncbridge_tools.bench.scenarios import SCENARIOS, Load, Options, Outcome, connect
from syncbridge_tools.bench.target import DEFAULT_URL, Target, TargetError, parse_target

EXIT_INCOMPLETE = 1
EXIT_USAGE = 2
SPARE_DESCRIPTORS = 64
COMMANDS = {
    "connect": ((), "Open connections with AUTH; measure rate, latency, and memory of the server."),
    "idle": (("idle",), "Hold the connections and answer only pings."),
    "heartbeat": (
        ("heartbeat",),
        "Measure HEARTBEAT round trips, as a closed loop over 100 connections.",
    ),
    "fanout": (("fanout",), "Broadcast to every connection through POST /admin/broadcast."),
    "updates": (
        ("updates",),
        "Send STATE_UPDATEs at a fixed rate; measure until the other devices have them.",
    ),
    "all": (tuple(SCENARIOS), "Run all of these, one after the other."),
}

app = typer.Typer(
    name="bench",
    help="Measure a running server under the load of many simulated clients. Start the server with "
    "SYNCBRIDGE_RATE_LIMIT_ENABLED=false, or you measure its rate limits. The sessions stay in "
    "Redis until their TTL ends: use a Redis whose data you can discard.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Url = Annotated[str, typer.Option(help="WebSocket URL of the server.")]
Connections = Annotated[int, typer.Option(min=1, max=1_000_000, help="Number of devices.")]
PerSession = Annotated[
    int, typer.Option("--devices-per-session", min=2, max=32, help="Devices in each session.")
]
Duration = Annotated[
    float, typer.Option(min=0.1, max=3600, help="Seconds that each scenario runs.")
]
Rate = Annotated[float, typer.Option(min=1, help="Updates a second, over all sessions.")]
Concurrency = Annotated[int, typer.Option(min=1, help="Connections to open at the same time.")]
ServerPid = Annotated[
    int, typer.Option(min=0, help="Also measure CPU and memory of this process id; 0: none.")
]
Remote = Annotated[bool, typer.Option("--allow-remote", help="Allow a server on another machine.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the figures to a file.")]
PlotFile = Annotated[Path | None, typer.Option("--plot", help="Draw latencies: .png or .svg.")]


def _command(name: str, scenarios: tuple[str, ...], text: str) -> None:
    @app.command(name, help=text)
    def run(
        url: Url = DEFAULT_URL,
        connections: Connections = 1000,
        per_session: PerSession = 2,
        duration: Duration = 10.0,
        rate: Rate = 1000.0,
        concurrency: Concurrency = 64,
        server_pid: ServerPid = 0,
        allow_remote: Remote = False,
        json: JsonFile = None,
        plot: PlotFile = None,
    ) -> None:
        options = Options(connections, per_session, duration, rate, concurrency, server_pid)
        try:
            target = parse_target(url, allow_remote)
            _raise_descriptor_limit(connections)
            outcomes = measure(target, options, scenarios)
            report.show(Console(), outcomes)
            _write(outcomes, options, url, json, plot)
        except (TargetError, ConfigError, report.PlotError, OSError) as error:
            _fail(str(error))
        if not all(outcome.complete for outcome in outcomes):
            raise typer.Exit(EXIT_INCOMPLETE)


for _name, (_scenarios, _text) in COMMANDS.items():
    _command(_name, _scenarios, _text)


def measure(target: Target, options: Options, scenarios: tuple[str, ...]) -> list[Outcome]:
    """Connect, then run the scenarios in turn; stops early when the connections failed."""
    tokens = token_mint()
    first = [
        device.auth_message()
        for device in devices(tokens, options.connections, options.devices_per_session)
    ]
    clients = swarm.Swarm(target.address, target.port, options.connections, path=target.path)
    with _progress() as progress:

        def load(name: str) -> Load:
            watch = _watch(progress, name)
            return Load(clients, options, target.http, admin_token(tokens), watch)

        try:
            outcomes = [connect(load("connect"), first)]
            if outcomes[0].complete:
                outcomes += [SCENARIOS[name](load(name)) for name in scenarios]
        finally:
            clients.close(reset=True)
    return outcomes


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    return Progress(*columns, TimeElapsedColumn(), console=console, disable=not console.is_terminal)


def _watch(progress: Progress, name: str) -> Callable[[swarm.Progress], object]:
    """Shows a phase as a bar; one that only time ends shows how much it has done."""
    task = progress.add_task(name, total=None)

    def watch(seen: swarm.Progress) -> None:
        progress.update(task, completed=seen.done, total=seen.goal or None)

    return watch


def _raise_descriptor_limit(connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_DESCRIPTORS
    if soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise OSError(f"{connections} connections need `ulimit -n {needed}`; it is {hard}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _write(
    outcomes: list[Outcome], options: Options, url: str, json: Path | None, plot: Path | None
) -> None:
    if json is not None:
        report.write_json(json, outcomes, options, url)
    if plot is not None:
        report.plot(plot, outcomes)


def _fail(message: str) -> NoReturn:
    typer.echo(f"syncbridge bench: {' '.join(message.split())}", err=True)
    raise typer.Exit(EXIT_USAGE)


if __name__ == "__main__":
    app()
