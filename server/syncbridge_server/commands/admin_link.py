"""`syncbridge admin-link`: a link that opens the dashboard once, within ten minutes.

It asks the server for the link as an admin (`rest`).
"""

from typing import Annotated, Literal

import typer

from syncbridge_server.commands.rest import DEFAULT_URL, Rest, Url

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def admin_link(
    url: Url = DEFAULT_URL,
    role: Annotated[
        Literal["admin", "viewer"], typer.Option(help="A viewer sees and may not act.")
    ] = "admin",
    user: Annotated[str, typer.Option(help="User id; the token's, if it is left out.")] = "",
) -> None:
    """Print a link to the dashboard, good once and for ten minutes."""
    with Rest("admin-link", url) as rest:
        body = {"role": role} | ({"user_id": user} if user else {})
        link = rest.ask("POST", "/admin/links", body=body).json()
    typer.echo(url.rstrip("/") + link["path"])
