"""`syncbridge why USER CHANNEL`: why somebody is shown in a call or not, asked over HTTP.

It prints the answer in plain words, and below it what was said lately; with `--json` what the
server told. It asks as an admin (`rest`).
"""

import json
from typing import Annotated, Any
from urllib.parse import quote

import typer

from syncbridge.voice.why import explained
from syncbridge_server.commands.rest import DEFAULT_URL, Rest, Url, printable

PAGE = 500
PAGES = 4
"""A timeline is no longer."""
NOT_FOUND, CONFLICT = 404, 409

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def why(
    user: Annotated[str, typer.Argument(help="User id.")],
    channel: Annotated[str, typer.Argument(help="Channel id.")],
    waddle: Annotated[str, typer.Option(help="Waddle of the channel, if several have it.")] = "",
    url: Url = DEFAULT_URL,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the server's answers as JSON.")
    ] = False,
) -> None:
    """Explain why a user is shown in the call of a voice channel, or is not."""
    with Rest("why", url) as rest:
        path = f"/voice/channels/{quote(channel, safe='')}"
        which = {"waddle": waddle} if waddle else {}
        answer = rest.try_to("GET", path, which)
        if answer.status_code == CONFLICT:
            waddles = ", ".join(answer.json().get("waddles", []))
            rest.fail(printable(f"several waddles have {channel}; add --waddle, one of: {waddles}"))
        there = answer.status_code != NOT_FOUND
        shown = rest.ask("GET", path, which).json() if there else None
        entries = list(_timeline(rest, path, user, which)) if there else []
    if as_json:
        typer.echo(json.dumps({"channel": shown, "entries": entries}))
        return
    for line in explained(user, shown, entries):
        typer.echo(printable(line))


def _timeline(rest: Rest, path: str, user: str, which: dict[str, str]) -> list[dict[str, Any]]:
    """The entries about a user and the whole call, the latest first."""
    entries: list[dict[str, Any]] = []
    cursor = ""
    for _ in range(PAGES):
        query = {"limit": str(PAGE), "userId": user, "cursor": cursor, **which}
        page = rest.ask("GET", f"{path}/timeline", query).json()
        entries += page["entries"]
        cursor = page["nextCursor"]
        if not cursor:
            break
    return entries
