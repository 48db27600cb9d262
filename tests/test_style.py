"""Habits of writing that a linter does not know: every file says what it is for, and no file
speaks of the machine on which it was written.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from support.source_tree import CODE_SUFFIXES, text, with_suffix, written

MAX_COLUMNS = 100
TEXT_SUFFIXES = (*CODE_SUFFIXES, ".md", ".toml", ".proto", ".svg", ".yaml", ".yml", ".txt", "")
CODE = [p for p in written() if p.suffix in CODE_SUFFIXES]
BYTES = "tests/fuzz/corpus/"
TEXT = [p for p in written() if p.suffix in TEXT_SUFFIXES and not p.as_posix().startswith(BYTES)]

UNFINISHED = re.compile(r"\b(?:TO(?:DO)|FIX(?:ME)|X{3}|HA(?:CK))\b")
MACHINE_PATH = re.compile(r"(?<![\w.<>}*-])/(?:home|root|Users|work|mnt|farm)/[\w.]")
_CYTHON = re.compile(r'(?:#[^\n]*\n|\s)*[ru]*"""\S')
_C = re.compile(r"/\*+\s*\S|//\s*\S")
OPENING = {
    ".pyx": _CYTHON,
    ".pxd": re.compile(rf"{_CYTHON.pattern}|#\s*\S"),
    ".pxi": re.compile(rf"{_CYTHON.pattern}|#\s*\S"),
    ".lua": re.compile(r"(?:#!lua[^\n]*\n)?--(?:\[\[)?\s*\S"),
    ".h": _C,
    ".c": _C,
    ".sh": re.compile(r"#![^\n]+\n#\s*\S"),
}
"""How a file of each kind opens when it says what it is for."""


def lines_where(path: Path, wrong: Callable[[str], bool]) -> list[str]:
    """`file:line` of each line of a file that is wrong."""
    lines = enumerate(text(path).split("\n"), 1)
    return [f"{path}:{n}" for n, line in lines if wrong(line)]


def test_python_files_open_with_a_docstring() -> None:
    """A Python file says in its docstring, in a sentence, what it is for."""
    opening = {p: ast.get_docstring(ast.parse(text(p))) for p in with_suffix(".py", ".pyi")}

    assert [str(p) for p, words in opening.items() if len((words or "").split()) < 3] == []


def test_other_sources_open_with_their_purpose() -> None:
    """Cython, C, Lua and shell files open with a docstring or comment."""
    paths = with_suffix(*OPENING)

    assert [str(p) for p in paths if not OPENING[p.suffix].match(text(p))] == []


def test_lines_fit_the_page() -> None:
    """No line of code is wider than 100 columns, ends in blanks, or holds a tab."""
    wide = [n for p in CODE for n in lines_where(p, lambda line: len(line) > MAX_COLUMNS)]
    blanks = [n for p in CODE for n in lines_where(p, lambda line: line != line.rstrip())]
    tabs = [n for p in CODE for n in lines_where(p, lambda line: "\t" in line)]

    assert (wide, blanks, tabs) == ([], [], [])


def test_nothing_is_left_to_do() -> None:
    """Unfinished work is in the issue tracker, not in a comment."""
    assert [n for p in TEXT for n in lines_where(p, lambda x: bool(UNFINISHED.search(x)))] == []


def test_no_file_speaks_of_one_machine() -> None:
    """No absolute path of somebody's home, checkout or mount is in the tree."""
    assert [n for p in TEXT for n in lines_where(p, lambda x: bool(MACHINE_PATH.search(x)))] == []


def test_text_files_end_with_a_newline() -> None:
    """The last line of every text file is ended, so that diffs stay quiet."""
    assert [str(p) for p in TEXT if text(p) and not text(p).endswith("\n")] == []


def test_every_test_states_its_expectation() -> None:
    """Each test function has a docstring that says what is expected."""
    silent = [
        f"{path}:{node.lineno} {node.name}"
        for path in with_suffix(".py", under="tests/")
        for node in ast.walk(ast.parse(text(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert silent == []


def test_no_test_reads_the_clock_before_it_runs() -> None:
    """A token of when the tests were collected has expired before the last of them runs."""
    early = []
    for path in with_suffix(".py", under="tests/"):
        tree = ast.parse(text(path))
        clocked = {"mint", "voice_mint"} | {
            node.name
            for node in tree.body
            if isinstance(node, ast.FunctionDef) and "time.time()" in ast.unparse(node)
        }
        early += [
            f"{path}:{call.lineno}"
            for call in _calls_at_import(tree)
            if ast.unparse(call.func) in clocked | {"time.time"}
        ]

    assert early == []


def _calls_at_import(node: ast.AST) -> Iterator[ast.Call]:
    """The calls that importing a file makes; bodies of functions are left out."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            for decorator in child.decorator_list:
                yield from _calls_at_import(ast.Expr(decorator))
        elif not isinstance(child, ast.Lambda):
            if isinstance(child, ast.Call):
                yield child
            yield from _calls_at_import(child)
