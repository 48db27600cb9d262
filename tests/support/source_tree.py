"""The files of the checkout, for the guard tests: what git tracks or would track."""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE_ROOTS = {
    "pysrc": "syncbridge",
    "core_ext": "syncbridge_core",
    "server": "syncbridge_server",
    "tools": "syncbridge_tools",
}
"""Folder of each source root of the server's distribution -> the one import package in it."""

CLIENT_ROOT = Path("clients/python")
CLIENT = "syncbridge_client"
"""The Python client, a distribution of its own: its folder, and the one import package in it."""

CODE_SUFFIXES = (".py", ".pyi", ".pyx", ".pxd", ".pxi", ".h", ".c", ".lua", ".sh")
GENERATED = "_pb2"
"""How the names of generated modules end."""

_NOT_OURS = {".git", ".venv", "build", "dist", "__pycache__", ".hypothesis"}


@cache
def files() -> tuple[Path, ...]:
    """Every file that belongs to the project, relative to ROOT, sorted.

    In a checkout git knows; in an unpacked sdist everything but build products belongs.
    """
    if (ROOT / ".git").exists():
        listing = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        found = {Path(name) for name in listing.decode().split("\0") if name}
    else:
        found = {path.relative_to(ROOT) for path in ROOT.rglob("*")}
    return tuple(
        path
        for path in sorted(found)
        if (ROOT / path).is_file() and not _NOT_OURS.intersection(path.parts)
    )


def written() -> tuple[Path, ...]:
    """The files that people write: all but the generated ones."""
    return tuple(path for path in files() if not path.stem.endswith(GENERATED))


def with_suffix(*suffixes: str, under: str = "") -> list[Path]:
    """Written files whose name ends in one of `suffixes`, below a folder of ROOT."""
    return [p for p in written() if p.suffix in suffixes and p.as_posix().startswith(under)]


def text(path: Path) -> str:
    """The content of a project file."""
    return (ROOT / path).read_text("utf-8")
