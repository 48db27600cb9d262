"""The arrows between the packages, and the habits of structure that keep files readable.

tools -> server -> pysrc -> core_ext, never back; the client stands alone. `pysrc` is synchronous
and is told the time. The compiled kernels meet the domain in one file. Each rule is read from the
syntax tree, not from a running import, so a late import inside a function counts as well.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.source_tree import (
    CLIENT,
    CLIENT_ROOT,
    CODE_SUFFIXES,
    SOURCE_ROOTS,
    files,
    text,
    with_suffix,
)

KERNEL_CHOICE = Path("pysrc/syncbridge/kernels/__init__.py")
COMMANDS = Path("server/syncbridge_server/cli.py")
ROUTES = "server/syncbridge_server/http/"
SUPPORT = "tests/support/"
TYPES = "tests/typing/"
"""What mypy checks and nobody runs."""

MAX_LINES = 600
MAX_FILES = 24

DOMAIN_MAY_IMPORT = {"syncbridge", "msgspec", "google"}
"""Besides the standard library: itself, and a codec for each encoding."""

WAITING = {
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

DOMAIN_MUST_NOT_IMPORT = WAITING | {
    "fileinput",
    "getpass",
    "glob",
    "importlib",
    "io",
    "logging",
    "mmap",
    "os",
    "pathlib",
    "platform",
    "random",
    "secrets",
    "shutil",
    "sys",
    "tempfile",
}
"""Those, and files, chance, the environment, the log, and the interpreter with its imports."""

AWAITED = {
    "AbstractAsyncContextManager",
    "AsyncExitStack",
    "AsyncGenerator",
    "AsyncIterable",
    "AsyncIterator",
    "Awaitable",
    "Coroutine",
    "asynccontextmanager",
}
"""Names of what somebody waits for."""

OUTSIDE = {
    "SystemRandom",
    "__import__",
    "getnode",
    "input",
    "now",
    "open",
    "print",
    "today",
    "utcnow",
    "uuid1",
    "uuid4",
}
"""Names of functions that meet the world as those modules do, and are in none of them."""

CYTHON_OWN = {"cython", "cpython", "libc", "libcpp", "posix"}
PYX_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+c?import\b|c?import[ \t]+([\w., \t]+))", re.M
)

CLIENT_FOLDER = f"{CLIENT_ROOT.as_posix()}/{CLIENT}/"
CLIENT_RULES_MAY_IMPORT = {CLIENT, "msgspec"}
CLIENT_MAY_IMPORT = CLIENT_RULES_MAY_IMPORT | {"anyio", "httpx", "wsproto"}
CLIENT_WAITS = {
    "calls",
    "feeds",
    "link",
    "session",
    "talking",
    "tokens",
    "transport",
    "update",
}
CLIENT_SHELL_FOLDERS = {"rest", "storage"}
"""The client library's files that meet a network or a disk; its rules of updates never wait."""

DOMAIN = with_suffix(".py", under="pysrc/")
SERVER = with_suffix(".py", under="server/")
TOOLS = with_suffix(".py", under="tools/")
CLIENT_PYTHON = with_suffix(".py", under=CLIENT_FOLDER)
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
    beside = [p.relative_to(CLIENT_ROOT) for p in files() if p.is_relative_to(CLIENT_ROOT)]

    assert {entry for entry in inside if not entry[1].endswith(".md")} == set(SOURCE_ROOTS.items())
    assert {p.parts[0] for p in beside if p.suffix == ".py"} == {CLIENT}


def test_core_imports_only_the_standard_library() -> None:
    """`core_ext` is the bottom: itself, Cython's own modules and the standard library."""
    allowed = sys.stdlib_module_names | CYTHON_OWN | {"syncbridge_core"}

    assert offenders(CORE_PYTHON, lambda p: tops(p) - allowed) == {}
    assert offenders(CORE_CYTHON, lambda p: set(imported_by_cython(p)) - allowed) == {}


def of_client_shell(path: Path) -> bool:
    """True for the files of the client library that may wait."""
    return path.stem in CLIENT_WAITS or path.parent.name in CLIENT_SHELL_FOLDERS


def test_the_client_stands_alone() -> None:
    """The client library imports nothing of the server; its shell, three packages."""
    allowed = (sys.stdlib_module_names - {"asyncio", "socket", "time"}) | CLIENT_MAY_IMPORT
    show = f"import sys, {CLIENT}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", show], check=True, capture_output=True, text=True
    ).stdout.split()
    ours = {name.split(".")[0] for name in loaded if name.startswith("syncbridge")}

    assert CLIENT_WAITS <= {p.stem for p in CLIENT_PYTHON}
    assert offenders(CLIENT_PYTHON, lambda p: tops(p) - allowed) == {}
    assert ours == {CLIENT}


def test_the_rules_of_the_client_never_wait() -> None:
    """Local updates, conflicts and the dialogue are synchronous and are told the time."""
    allowed = (sys.stdlib_module_names - WAITING) | CLIENT_RULES_MAY_IMPORT
    rules = [p for p in CLIENT_PYTHON if not of_client_shell(p)]

    assert offenders(rules, lambda p: tops(p) - allowed) == {}
    assert offenders(rules, waits) == {}


def test_nobody_but_the_tools_imports_the_tools() -> None:
    """The server knows them by the names in its table of commands; nobody else does."""
    others = [*DOMAIN, *SERVER, *CORE_PYTHON, *CLIENT_PYTHON]
    naming = {p for p in others if "syncbridge_tools" in text(p)}

    assert offenders(others, lambda p: tops(p) & {"syncbridge_tools"}) == {}
    assert naming == {COMMANDS}


def test_the_server_and_its_tools_know_no_client() -> None:
    """What the client shares with the server is generated; neither imports the other."""
    assert offenders([*DOMAIN, *SERVER, *TOOLS, *CORE_PYTHON], lambda p: tops(p) & {CLIENT}) == {}


def modules() -> dict[str, Path]:
    """Every Python module of the product by its dotted name."""
    found = {}
    for root in (*map(Path, SOURCE_ROOTS), CLIENT_ROOT):
        for path in with_suffix(".py", under=f"{root.as_posix()}/"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def parting(one: str, other: str) -> tuple[str, str, str] | None:
    """The nearest package around two modules, and the members of it in which each is."""
    ours, theirs = one.split("."), other.split(".")
    for depth, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        if a != b:
            return ".".join(ours[:depth]), a, b
    return None


def import_graphs() -> dict[str, dict[str, set[str]]]:
    """For each package, and for "" the packages themselves: which member imports which."""
    known = modules()
    graphs: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name, path in known.items():
        for target in set(imported(path)) & set(known):
            if found := parting(name, target):
                package, importing, it_imports = found
                graphs[package][importing].add(it_imports)
    return graphs


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Members that import each other in a circle, or nothing."""
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_no_imports_go_in_a_circle() -> None:
    """Within each package its modules and rooms import each other in one direction only; so do the
    packages themselves.
    """
    graphs = import_graphs()
    circles = {package: found for package, graph in graphs.items() if (found := circle(graph))}

    assert {"", "syncbridge_server", "syncbridge_server.voice"} <= set(graphs)
    assert circles == {}


def test_routes_import_no_other_route() -> None:
    """What routes share is in `http/support`, which knows none of them."""
    routes = [p for p in SERVER if f"{p.parent.as_posix()}/" == ROUTES and p.stem != "__init__"]
    support = [p for p in SERVER if p.as_posix().startswith(f"{ROUTES}support/")]
    names = {f"syncbridge_server.http.{p.stem}" for p in routes}

    assert routes
    assert offenders([*routes, *support], lambda p: set(imported(p)) & names) == {}


def test_the_domain_imports_no_framework_and_no_clock() -> None:
    """`pysrc` imports itself, its codecs, and of the standard library nothing that meets the world.

    The choice of kernels is the one exception: it reads a variable of the environment.
    """
    allowed = (sys.stdlib_module_names - DOMAIN_MUST_NOT_IMPORT) | DOMAIN_MAY_IMPORT
    others = [p for p in DOMAIN if p != KERNEL_CHOICE]

    assert offenders(others, lambda p: tops(p) - allowed) == {}
    assert tops(KERNEL_CHOICE) - allowed == {"syncbridge_core", "os"}


def test_the_server_takes_documents_through_the_choice() -> None:
    """The document kernel has a twin, so the shell asks `syncbridge.kernels` for it."""
    kernel = {"syncbridge_core.document"}

    assert offenders(SERVER, lambda p: set(imported(p)) & kernel) == {}


def is_awaited(node: ast.AST) -> bool:
    """True for code that waits, and for the names of what somebody waits for."""
    if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.AsyncFunctionDef):
        return True
    if isinstance(node, ast.alias):
        return node.name in AWAITED
    return isinstance(node, ast.Attribute) and node.attr in AWAITED


def waits(path: Path) -> list[int]:
    """Lines that await, could, or speak of what is awaited."""
    nodes = (n for n in ast.walk(tree(path)) if is_awaited(n))
    return [getattr(n, "lineno", 0) for n in nodes]


def test_the_domain_never_waits() -> None:
    """No `async def`, no `await` and no `Awaitable` in `pysrc`."""
    assert offenders(DOMAIN, waits) == {}


def meets_the_world(node: ast.AST) -> bool:
    """True for a call that reads a clock, chance or a file, or prints."""
    if not isinstance(node, ast.Call):
        return False
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return name in OUTSIDE


def test_the_domain_is_told_what_it_needs() -> None:
    """No call in `pysrc` reads a clock, chance or a file, or prints; all of that is an argument."""

    def calls(path: Path) -> list[int]:
        return [getattr(n, "lineno", 0) for n in ast.walk(tree(path)) if meets_the_world(n)]

    assert offenders(DOMAIN, calls) == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from collections.abc import Awaitable", True),
        ("def f() -> abc.Awaitable[int]: ...", True),
        ("async def f(): ...", True),
        ("x = open('a')", True),
        ("print(x)", True),
        ("m = __import__('os')", True),
        ("x = uuid.uuid4()", True),
        ("x = datetime.now(UTC)", True),
        ("x = uuid.uuid5(space, name)", False),
        ("from collections.abc import Iterator", False),
    ],
)
def test_the_guards_of_the_domain_see_what_they_should(source: str, expected: bool) -> None:
    """The guards are tried on code that they must refuse and code that they must let pass."""
    found = any(is_awaited(n) or meets_the_world(n) for n in ast.walk(ast.parse(source)))

    assert found is expected


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


def test_no_folder_is_crowded() -> None:
    """No folder holds 25 source files: they are in rooms by then. The core is one room."""
    code = (p for p in files() if p.suffix in CODE_SUFFIXES and p.parts[0] != "core_ext")
    folders = Counter(p.parent.as_posix() for p in code)

    assert {name: n for name, n in folders.items() if n > MAX_FILES} == {}


def is_out_of_place(path: Path) -> bool:
    """True for a module of `tests` that is a kit beside tests, or a test among the kits."""
    kept_apart = path.as_posix().startswith((SUPPORT, TYPES))
    is_test = path.stem.startswith("test_") or path.stem in {"conftest", "__init__"}
    return kept_apart is is_test


def test_what_tests_stand_on_is_in_support() -> None:
    """Beside tests there are tests only; models, servers and clients for them are kits."""
    python = with_suffix(".py", under="tests/")

    assert {SUPPORT, TYPES} <= {"/".join(p.parts[:2]) + "/" for p in python}
    assert [p for p in python if is_out_of_place(p)] == []


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("tests/kernels/test_throttle.py", False),
        ("tests/kernels/conftest.py", False),
        ("tests/kernels/json_cases.py", True),
        ("tests/history/checker.py", True),
        ("tests/server_kit.py", True),
        ("tests/support/kernels/json_cases.py", False),
        ("tests/support/kernels/test_throttle.py", True),
    ],
)
def test_the_guard_of_the_kits_sees_what_it_should(path: str, expected: bool) -> None:
    """The guard is tried on names that it must refuse and names that it must let pass."""
    assert is_out_of_place(Path(path)) is expected


def test_files_are_named_after_what_they_hold() -> None:
    """Product code has no `utils` or `helpers`; a thing lives under its own noun."""
    vague = {"utils", "util", "helpers", "helper", "misc", "common"}
    product = [p for p in files() if p.parts[0] in SOURCE_ROOTS or p.is_relative_to(CLIENT_ROOT)]

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
