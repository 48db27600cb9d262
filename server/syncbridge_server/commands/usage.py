"""Runs the command line of an application: a mistake in it is one line, like one in settings."""

from collections.abc import Sequence

import typer
from typer.main import get_command


def run(app: typer.Typer, arguments: Sequence[str] | None, name: str) -> int:
    """The exit code of a command.

    Args:
        arguments: after the program's name; None: those of this process.
        name: as the user calls it.
    """
    try:
        code = get_command(app).main(arguments, prog_name=name, standalone_mode=False)
    except typer.Abort:
        return 1
    except typer.TyperException as error:
        told = error.format_message()
        if "\n" not in told.strip():  # else it is the help that a bare name asks for
            context = getattr(error, "ctx", None)
            see = context.command_path if context else name
            told = f"{name}: {told.rstrip('.')}; see {see} --help"
        typer.echo(told, err=True)
        return error.exit_code
    return code if isinstance(code, int) else 0
