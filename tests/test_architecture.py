"""The arrows between the packages, and the habits of structure that keep files readable.

server -> pysrc -> core_ext, never back. `pysrc` is synchronous and is told the time. The compiled
kernels meet the domain in one file. Each rule is read from the syntax tree, not from a running
import, so a late import inside a function counts as well.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.source_tree import CODE_SUFFIXES, SOURCE_ROOTS, files, text, with_suffix

KERNEL_CHOICE = Path("pysrc/syncbridge/kernels/__init__.py")
PORTS = Path("pysrc/syncbridge/records/sessions.py")
MAX_LINES = 600

DOMAIN_MAY_IMPORT = {"syncbridge", "msgspec", "google"}
"""Besides the standard library: itself, and a codec for each encoding."""

DOMAIN_MUST_NOT_IMPORT = {
    "asyncio",
    "concurrent",
    "http",
    "multiprocessing",
    "queue",
    "sched",
    "select",
    "selectors",
    "signal",
    "socket",
    "ssl",
    "subprocess",
    "threading",
    "time",
}
"""Parts of the standard library that wait, talk to the outside, or read a clock."""

CYTHON_OWN = {"cython", "cpython", "libc", "libcpp", "posix"}
PYX_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+c?import\b|c?import[ \t]+([\w., \t]+))", re.M
)

CLIENT = "clients/python/syncbridge_client/"
CLIENT_MAY_IMPORT = DOMAIN_MAY_IMPORT | {"anyio", "httpx", "wsproto"}
CLIENT_WAITS = {
    "calls",
    "feeds",
    "link",
    "rest",
    "session",
    "talking",
    "tokens",
    "transport",
    "update",
}
"""The client library's files that meet a network; its rules of local updates never wait."""

DOMAIN = with_suffix(".py", under="pysrc/")
SERVER = with_suffix(".py", under="server/")
CORE_PYTHON = with_suffix(".py", ".pyi", under="core_ext/")
CORE_CYTHON = with_suffix(".pyx", ".pxd", ".pxi", under="core_ext/")
PYTHON = with_suffix(".py")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(text(path), str(path))


def imported(path: Path) -> Iterator[str]:
    """Absolute dotted names that a Python file imports anywhere."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported_by_cython(path: Path) -> Iterator[str]:
    """Top-level names that a Cython file imports or cimports; relative ones are left out."""
    for module, names in PYX_IMPORT.findall(text(path)):
        for name in (module or names).split(","):
            top = name.strip().split(" ")[0].split(".")[0]
            if top:
                yield top


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def offenders(paths: Iterable[Path], found: Callable[[Path], Collection[Any]]) -> dict[str, Any]:
    """What `found` returns for each file, leaving out the files where it is empty."""
    return {path.as_posix(): wrong for path in paths if (wrong := found(path))}


def test_each_source_root_holds_one_package() -> None:
    """A source root has nothing beside its one package, so nothing can be imported twice."""
    inside = {(p.parts[0], p.parts[1]) for p in files() if p.parts[0] in SOURCE_ROOTS}

    assert {entry for entry in inside if not entry[1].endswith(".md")} == set(SOURCE_ROOTS.items())


def test_core_imports_only_the_standard_library() -> None:
    """`core_ext` is the bottom: itself, Cython's own modules and the standard library."""
    allowed = sys.stdlib_module_names | CYTHON_OWN | {"syncbridge_core"}

    assert offenders(CORE_PYTHON, lambda p: tops(p) - allowed) == {}
    assert offenders(CORE_CYTHON, lambda p: set(imported_by_cython(p)) - allowed) == {}


def of_client_shell(path: Path) -> bool:
    """True for the files of the client library that may wait."""
    return path.as_posix().startswith(CLIENT) and path.stem in CLIENT_WAITS


def test_the_client_stands_alone() -> None:
    """The client library imports neither the server nor a kernel; its shell, three packages."""
    client = with_suffix(".py", under=CLIENT)
    allowed = (sys.stdlib_module_names - {"asyncio", "socket", "time"}) | CLIENT_MAY_IMPORT
    show = "import sys, syncbridge_client; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", show], check=True, capture_output=True, text=True
    ).stdout.split()
    ours = {name for name in loaded if name.startswith("syncbridge")}

    assert CLIENT_WAITS <= {p.stem for p in client}
    assert offenders(client, lambda p: tops(p) - allowed) == {}
    assert {n for n in ours if n.startswith(("syncbridge_", "syncbridge.kernels"))} == set()


def test_the_domain_imports_no_framework_and_no_clock() -> None:
    """`pysrc` imports itself, its codecs, and the standard library without I/O and clocks."""
    allowed = (sys.stdlib_module_names - DOMAIN_MUST_NOT_IMPORT) | DOMAIN_MAY_IMPORT
    others = [p for p in DOMAIN if p != KERNEL_CHOICE and not of_client_shell(p)]

    assert offenders(others, lambda p: tops(p) - allowed) == {}
    assert tops(KERNEL_CHOICE) - allowed == {"syncbridge_core"}


def test_the_server_takes_documents_through_the_choice() -> None:
    """The document kernel has a twin, so the shell asks `syncbridge.kernels` for it."""
    kernel = {"syncbridge_core.document"}

    assert offenders(SERVER, lambda p: set(imported(p)) & kernel) == {}


def declares_only(node: ast.AST) -> bool:
    """True for an `async def` with no body but a docstring or `...`."""
    if not isinstance(node, ast.AsyncFunctionDef):
        return False
    return all(isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant) for s in node.body)


def waits(path: Path) -> list[int]:
    """Lines that await or could; in `ports.py`, a declaration of what others await is none."""
    kinds = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.AsyncFunctionDef)
    nodes = [n for n in ast.walk(tree(path)) if isinstance(n, kinds)]
    return [n.lineno for n in nodes if path != PORTS or not declares_only(n)]


def test_the_domain_never_waits() -> None:
    """No `async def` and no `await` in `pysrc`, but for declarations in `ports.py` and the client's
    network files.
    """
    assert offenders((p for p in DOMAIN if not of_client_shell(p)), waits) == {}


def reads_a_clock(path: Path) -> list[int]:
    calls = (n.func for n in ast.walk(tree(path)) if isinstance(n, ast.Call))
    clocks = {"now", "utcnow", "today"}
    return [f.lineno for f in calls if isinstance(f, ast.Attribute) and f.attr in clocks]


def test_the_domain_is_told_the_time() -> None:
    """No call in `pysrc` reads a clock through `datetime`."""
    assert offenders(DOMAIN, reads_a_clock) == {}


def swallows_import_error(node: ast.AST) -> bool:
    """True for a handler or `suppress` that catches ImportError and neither raises nor reports."""
    if isinstance(node, ast.ExceptHandler) and node.type is not None:
        caught: ast.AST = node.type
        inside = [n for statement in node.body for n in ast.walk(statement)]
        reports = any(isinstance(n, ast.Name) and n.id == node.name for n in inside)
        raises = reports or any(isinstance(n, ast.Raise) for n in inside)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        caught, raises = node, False
    else:
        return False
    names = {n.id for n in ast.walk(caught) if isinstance(n, ast.Name)}
    return bool(names & {"ImportError", "ModuleNotFoundError"}) and not raises


def test_a_missing_import_is_never_swallowed() -> None:
    """Whoever catches ImportError raises or reports it: silence hides a broken installation."""
    quiet = offenders(PYTHON, lambda p: [n for n in ast.walk(tree(p)) if swallows_import_error(n)])

    assert quiet == {}


def test_no_file_is_long() -> None:
    """No source file has more than 600 lines: beyond that it holds more than one idea."""
    lengths = {p.as_posix(): text(p).count("\n") for p in files() if p.suffix in CODE_SUFFIXES}

    assert {name: n for name, n in lengths.items() if n > MAX_LINES} == {}


def test_files_are_named_after_what_they_hold() -> None:
    """Product code has no `utils` or `helpers`; a thing lives under its own noun."""
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    product = [p for p in files() if p.parts[0] in SOURCE_ROOTS]

    assert [p for p in product if vague & {p.stem, *p.parts}] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("try:\n    import x\nexcept ImportError:\n    x = None\n", True),
        ("try:\n    import x\nexcept (OSError, ModuleNotFoundError):\n    pass\n", True),
        ("with contextlib.suppress(ImportError):\n    import x\n", True),
        ("try:\n    import x\nexcept ImportError as e:\n    raise Missing() from e\n", False),
        ("try:\n    import x\nexcept ImportError as e:\n    fail(str(e))\n", False),
        ("try:\n    import x\nexcept ImportError as e:\n    x = None\n", True),
        ("try:\n    f()\nexcept ValueError:\n    pass\n", False),
    ],
)
def test_the_import_guard_sees_what_it_should(source: str, expected: bool) -> None:
    """The guard itself is tried on code that it must refuse and code that it must let pass."""
    found = any(swallows_import_error(node) for node in ast.walk(ast.parse(source)))

    assert found is expected
