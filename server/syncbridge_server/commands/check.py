"""`syncbridge check`: whether a server would start and work here, without starting one.

Each finding is a line; `--json` prints one object. Exit code: 0, 1 when something failed. No
finding shows a secret.
"""

import json
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

import trio
import typer

from syncbridge.errors import SyncBridgeError
from syncbridge_server.auth.assembly import build_tokens
from syncbridge_server.auth.state_policy import StatePolicy
from syncbridge_server.checks.findings import Finding, Level
from syncbridge_server.checks.local import (
    check_descriptors,
    check_files,
    check_ports,
    check_written,
)
from syncbridge_server.checks.provider import check_voice
from syncbridge_server.checks.redis import check_redis
from syncbridge_server.configuration.files import read_dotenv
from syncbridge_server.configuration.load import load_settings
from syncbridge_server.environment import unknown_names
from syncbridge_server.events.configured import load_endpoints
from syncbridge_server.events.guard import Guard
from syncbridge_server.log import configure_logging
from syncbridge_server.production import validate_production
from syncbridge_server.settings import ConfigError, Settings, variable
from syncbridge_server.telemetry.tracing import require_packages
from syncbridge_server.voice.provider.kinds import check_provider

SECONDS = 30.0
SKIPPABLE = frozenset({"files", "ports", "descriptors", "redis", "voice"})
COLOURS = {
    Level.OK: typer.colors.GREEN,
    Level.WARNING: typer.colors.YELLOW,
    Level.FAILED: typer.colors.RED,
    Level.SKIPPED: typer.colors.BRIGHT_BLACK,
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def check(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    skip: Annotated[
        list[str] | None,
        typer.Option(help="Skip files, ports, descriptors, redis or voice. Repeatable."),
    ] = None,
) -> None:
    """Check that a server would start and work with this configuration."""
    unknown = set(skip or ()) - SKIPPABLE
    if unknown:
        raise typer.BadParameter(f"no check is called {', '.join(sorted(unknown))}")
    configure_logging("console", "error")
    findings = look(frozenset(skip or ()))
    failed = any(finding.level is Level.FAILED for finding in findings)
    if as_json:
        shown = [finding._asdict() for finding in findings]
        typer.echo(json.dumps({"ok": not failed, "findings": shown}))
    else:
        _print(findings)
    if failed:
        raise typer.Exit(1)


def look(skip: frozenset[str] = frozenset()) -> list[Finding]:
    """Everything that is not skipped; only the configuration when that is wrong."""
    try:
        settings = load_settings()
    except ConfigError as error:
        return [Finding("configuration", Level.FAILED, str(error))]
    findings = list(_configuration(settings))
    if "files" not in skip:
        findings += [*check_files(), *check_written(settings)]
    local = {"ports": check_ports, "descriptors": check_descriptors}
    findings += [look(settings) for name, look in local.items() if name not in skip]
    if all(finding.level is not Level.FAILED for finding in findings[:1]):
        findings += trio.run(_reached, settings, skip)
    return findings


def _configuration(settings: Settings) -> list[Finding]:
    """What `serve` refuses, and names that nothing reads."""
    known = {variable(name) for name in Settings.model_fields}
    try:
        unknown = unknown_names({**read_dotenv(), **os.environ}, known)
        validate_production(settings)
        build_tokens(settings)
        check_provider(settings)
        StatePolicy(settings.state_policy)
        load_endpoints(settings.webhooks, Guard(settings.webhook_networks))
        if settings.otlp_url:
            require_packages()
    except ConfigError as error:
        return [Finding("configuration", Level.FAILED, str(error))]
    except SyncBridgeError as error:
        return [Finding("configuration", Level.FAILED, error.detail)]
    told = [Finding("configuration", Level.WARNING, f"{name} is not a setting") for name in unknown]
    return [Finding("configuration", Level.OK, "a server would take it"), *told]


async def _reached(settings: Settings, skip: frozenset[str]) -> list[Finding]:
    """What takes the network."""
    findings: list[Finding] = []
    if "redis" not in skip:
        findings += await _within(partial(check_redis, settings), "redis")
    if "voice" not in skip:
        findings += await _within(partial(check_voice, settings), "voice")
    return findings


async def _within(look: Callable[[], Awaitable[list[Finding]]], name: str) -> list[Finding]:
    """What a check found; whatever is silent for SECONDS has failed."""
    with trio.move_on_after(SECONDS):
        return await look()
    return [Finding(name, Level.FAILED, f"no answer within {SECONDS:.0f} s")]


def _print(findings: list[Finding]) -> None:
    """A line each, whatever the width of the terminal: a command in it can be copied."""
    for check, level, text in findings:
        typer.echo(f"{typer.style(f'{level:8}', COLOURS[level])} {check:20} {text}")
