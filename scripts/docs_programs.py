"""Write the Python programs of the documents to a folder, for mypy: docs_programs.py FOLDER.

Each is a module. What a fragment takes for granted stands before it, with its real type; `await` at
the top of a fragment is put into a coroutine.
"""

import ast
import re
import shutil
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
# Sketches of a design, with signatures that are left out; nobody pastes them.
LEFT_OUT = "docs/decisions"
GIVEN = """\
import time
from collections.abc import Callable
from typing import Any

import httpx

from syncbridge_client import Session

url: str = ""
token: str = ""
phone_token: str = ""
laptop_token: str = ""
refresh_token: str = ""
session_id: str = ""
peer_id: str = ""
answer: dict[str, Any] = {}
save: Any = None
store: Any = None
handle: Any = print
session: Session


"""


def module(program: str) -> str:
    """A program as a module that stands for itself."""
    awaits = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    compile(program, "program", "exec", awaits)
    try:
        compile(program, "program", "exec")
    except SyntaxError:
        return f"{GIVEN}async def program() -> None:\n{textwrap.indent(program, '    ')}"
    return program if "__future__" in program or "def main" in program else GIVEN + program


def main(folder: Path) -> None:
    """Write them all."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "clients/python/README.md"]:
        page = str(path.relative_to(ROOT))
        if not page.startswith(LEFT_OUT):
            for number, program in enumerate(BLOCK.findall(path.read_text("utf-8"))):
                name = re.sub(r"\W", "_", page.removesuffix(".md"))
                (folder / f"{name}_{number}.py").write_text(module(program), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
