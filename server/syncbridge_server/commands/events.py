"""`syncbridge events`: what happened, and what happens from now on, one line an event.

It reads `GET /events` behind a cursor and waits for more. It ends with Ctrl-C, after `--count`
events, or with `--no-follow` when it has read all that there is.
"""

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from syncbridge_server.commands.rest import DEFAULT_URL, Rest, Url, detail_of, printable

NAME = "events"
TOKEN_SECONDS = 86_400.0
WAIT_SECONDS = 5
ABOUT = ("session_id", "channel_id", "waddle_id", "user_id")
PAUSE_SECONDS = 1.0
"""After an answer that says to come again."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def events(
    url: Url = DEFAULT_URL,
    after: Annotated[
        str,
        typer.Option(
            help="Cursor of an event; `latest`: only what comes. Default: from the oldest."
        ),
    ] = "",
    kind: Annotated[
        str, typer.Option(help="Kinds, separated by commas, such as session.updated,device.*.")
    ] = "",
    session: Annotated[str, typer.Option(help="Only events of this session.")] = "",
    user: Annotated[str, typer.Option(help="Only events of this user.")] = "",
    channel: Annotated[str, typer.Option(help="Only events of this voice channel.")] = "",
    waddle: Annotated[str, typer.Option(help="Only events of voice channels of this waddle.")] = "",
    values: Annotated[bool, typer.Option(help="With the values that were written.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as received.")] = False,
    follow: Annotated[bool, typer.Option(help="Wait for more.")] = True,
    count: Annotated[int, typer.Option(min=0, help="Stop after this many events; 0: never.")] = 0,
) -> None:
    """Print what happened, one line for each event."""
    query = {"kind": kind, "session": session, "user": user, "channel": channel, "waddle": waddle}
    query |= {"values": "true"} if values else {}
    query = {name: value for name, value in query.items() if value}
    told = 0
    try:
        with Rest(NAME, url, TOKEN_SECONDS) as rest:
            for event in _events(rest, query, after, follow):
                typer.echo(json.dumps(event) if as_json else line_of(event))
                told += 1
                if told == count:
                    return
    except KeyboardInterrupt:
        raise typer.Exit from None


def line_of(event: dict[str, Any]) -> str:
    """An event as people read it: when, its cursor, its kind, what it is about, what it says.

    Nothing in it can move the cursor of a terminal.
    """
    about = [event[name] for name in ABOUT if name in event]
    data = json.dumps(event["data"], separators=(",", ":"))
    whom = printable(" ".join(about))
    return "\t".join([event["timestamp"], event["cursor"], event["type"], whom or "-", data])


def _events(
    rest: Rest, query: dict[str, str], after: str, follow: bool
) -> Iterator[dict[str, Any]]:
    while True:
        answer = rest.try_to(
            "GET", "/events", query | {"after": after, "wait": str(WAIT_SECONDS * follow)}
        )
        if answer.status_code == 503 and "retry-after" in answer.headers:
            time.sleep(PAUSE_SECONDS)
            continue
        if answer.status_code == 410:
            problem = answer.json()
            typer.echo(f"syncbridge {NAME}: {problem['detail']}", err=True)
            after = problem["oldest"]
            continue
        if not answer.is_success:
            rest.fail(f"{answer.status_code}: {detail_of(answer)}")
        page = answer.json()
        yield from page["events"]
        after = page["cursor"]
        if not follow and not page["more"]:
            return
