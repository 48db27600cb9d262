"""An earlier version of the server, to run beside this one.

A version is a folder with its packages. A process whose PYTHONPATH names the folder runs it, on the
dependencies of this environment. What git does not have, or cannot be asked for, skips the test.
"""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from support.source_tree import ROOT, SOURCE_ROOTS, text

NAMED = Path(".ci/previous-release")
"""The file that names the commit or tag of the release before this one, in its last line."""

BUILT_FROM = (*SOURCE_ROOTS, "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
BUILD_SECONDS = 1_800.0


def git(*words: str) -> bytes:
    """What git says; skips where there is no repository, or not all of it."""
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip(f"git {words[0]}: {done.stderr.decode().strip()[:200]}")
    return done.stdout


def oldest_with_these_kernels() -> str:
    """The commit since which nothing in core_ext has changed: what was compiled fits it."""
    commit = git("log", "-1", "--format=%H", "--", "core_ext").decode().strip()
    if git("diff", "--name-only", commit, "--", "core_ext"):
        pytest.skip("core_ext has changes that are not committed")
    return commit


def named() -> str:
    """The release before this one, or SYNCBRIDGE_UPGRADE_FROM."""
    return os.environ.get("SYNCBRIDGE_UPGRADE_FROM") or text(NAMED).split()[-1]


def _sources(commit: str, target: Path) -> None:
    archive = git("archive", "--format=tar", commit, *BUILT_FROM)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(target, filter="data")


def uncompiled(commit: str, folder: Path) -> Path:
    """The packages of a commit with the kernels of this checkout."""
    _sources(commit, folder / "sources")
    (packages := folder / "packages").mkdir()
    for root, name in SOURCE_ROOTS.items():
        (folder / "sources" / root / name).rename(packages / name)
    for kernel in (ROOT / "core_ext/syncbridge_core").glob("*.so"):
        (packages / "syncbridge_core" / kernel.name).symlink_to(kernel)
    return packages


def installed(commit: str, folder: Path) -> Path:
    """The wheel of a commit, built from its sources, installed into a folder."""
    _sources(commit, folder / "sources")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    target = ["--target", str(folder / "packages"), str(folder / "sources")]
    told = os.environ | {"SETUPTOOLS_SCM_PRETEND_VERSION": "0.0.1"}
    done = subprocess.run(
        [*pip, "--no-build-isolation", *target],
        env=told, capture_output=True, text=True, timeout=BUILD_SECONDS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return folder / "packages"


def runs_from(packages: Path) -> str:
    """Environment with which a process imports the server from a folder."""
    show = "import syncbridge_server as s, syncbridge as r; print(s.__file__, r.__file__)"
    return subprocess.check_output(
        [sys.executable, "-c", show], env=os.environ | variables(packages), text=True
    )


def variables(packages: Path) -> dict[str, str]:
    """Settings of a process of that version."""
    return {"PYTHONPATH": str(packages)}
