"""The script that builds the pages, with stand-ins for Node and npm: what it says and leaves."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.source_tree import ROOT

NODE = "#!/bin/sh\necho v22.0.0\n"
NPM = """#!/bin/sh
cat ../server/syncbridge_server/pages/progress >> ../told
[ "$1" = "$NPM_FAILS" ] && exit 1
[ "$1" = ci ] && mkdir -p node_modules
[ "$1" = run ] && mkdir -p ../build/pages && echo page > ../build/pages/index.html
exit 0
"""
FAILED = "their build failed, and `make pages` says why\n"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """As much of a checkout as the script needs."""
    for name in ("build_pages.sh", "find_node.sh"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/package-lock.json").write_text("{}")
    (tmp_path / "bin").mkdir()
    for name, text in {"node": NODE, "npm": NPM}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def build(tree: Path, fails: str = "") -> int:
    """Run it; returns its exit code. `fails`: the command of npm that does."""
    environment = {**os.environ, "PATH": f"{tree}/bin:{os.environ['PATH']}", "NPM_FAILS": fails}
    command = ["bash", str(tree / "scripts/build_pages.sh")]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    return done.returncode


def folder(tree: Path) -> Path:
    return tree / "server/syncbridge_server/pages"


def test_it_says_what_it_does_and_leaves_the_pages(tree: Path) -> None:
    """Once built nothing is fetched again."""
    codes = [build(tree), build(tree)]

    assert [0, 0] == codes
    assert ["fetching what the build needs", "compiling", "compiling"] == (
        (tree / "told").read_text().splitlines()
    )
    assert ["built"] == [path.name for path in folder(tree).iterdir()]
    assert "page\n" == (folder(tree) / "built/index.html").read_text()


def test_no_registry_no_pages(tree: Path) -> None:
    """A server then says so; the next build tries again."""
    failed = build(tree, "ci")
    said = (folder(tree) / "progress").read_text()
    again = build(tree)

    assert (1, FAILED, 0) == (failed, said, again)
    assert (folder(tree) / "built/index.html").exists()


def test_a_build_that_fails_leaves_the_pages_that_were_there(tree: Path) -> None:
    """With what it had built before."""
    built = build(tree)
    failed = build(tree, "run")

    assert (0, 1) == (built, failed)
    assert FAILED == (folder(tree) / "progress").read_text()
    assert "page\n" == (folder(tree) / "built/index.html").read_text()
