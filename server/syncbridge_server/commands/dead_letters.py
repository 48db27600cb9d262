"""`syncbridge dead-letters list | replay | discard`: a running server's dead letters, over HTTP.

It asks as an admin (`rest`). Nothing but the lines of the answer is printed, so that they can
be piped.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from syncbridge_server.commands.rest import DEFAULT_URL, Rest, Url

PATH = "/admin/voice/dead-letters"
PAGE = 200
NAME = "dead-letters"

app = typer.Typer(
    help="List, replay or discard webhooks that could not be processed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Entry = Annotated[list[str], typer.Argument(help="Entry ids that `list` prints, or `all`.")]


@app.command("list")
def list_letters(
    url: Url = DEFAULT_URL,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all fields, one JSON object a line.")
    ] = False,
) -> None:
    """Print the dead letters, newest first: entry id, time, reason, and events or record."""
    with Rest(NAME, url) as rest:
        for letter in _letters(rest):
            plain = (
                f"{letter['entry']}\t{letter['failed_at']}\t{letter['reason']}\t{_about(letter)}"
            )
            typer.echo(json.dumps(letter) if as_json else plain)


@app.command()
def replay(entries: Entry, url: Url = DEFAULT_URL) -> None:
    """Process dead letters again."""
    with Rest(NAME, url) as rest:
        for entry in _named(rest, entries):
            rest.ask("POST", f"{PATH}/{entry}/replay")
            typer.echo(entry)


@app.command()
def discard(entries: Entry, url: Url = DEFAULT_URL) -> None:
    """Delete dead letters."""
    with Rest(NAME, url) as rest:
        for entry in _named(rest, entries):
            rest.ask("DELETE", f"{PATH}/{entry}")
            typer.echo(entry)


def _about(letter: dict[str, Any]) -> str:
    """The record that failed, as a JSON text, or the events of a webhook."""
    if letter["record"]:
        return f"{letter['kind']} {json.dumps(letter['record'])}"
    return ",".join(event["type"] for event in letter["events"]) or "-"


def _named(rest: Rest, entries: list[str]) -> list[str]:
    """The entries; for `all` those that are there now, the earliest first."""
    if entries != ["all"]:
        return entries
    return [letter["entry"] for letter in _letters(rest)][::-1]


def _letters(rest: Rest) -> Iterator[dict[str, Any]]:
    cursor = ""
    while True:
        query = {"limit": str(PAGE), "cursor": cursor}
        page = rest.ask("GET", PATH, query).json()
        yield from page["dead_letters"]
        cursor = page["next_cursor"]
        if not cursor:
            return
