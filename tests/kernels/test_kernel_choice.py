"""The two implementations offer one interface, and the environment chooses between them."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.kernels.json_cases import outcome
from support.source_tree import ROOT

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus" / "document"
IMPORTED = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print([name for name in sys.modules if name.startswith("syncbridge.kernels")])
"""


def public(owner: object) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


def test_the_twins_have_the_same_names(compiled: ModuleType, pure: ModuleType) -> None:
    """What the domain may use exists on both sides, method by method."""
    for name in pure.__all__:
        ours, theirs = getattr(pure, name), getattr(compiled, name)
        if isinstance(ours, type):
            assert public(ours) == public(theirs)
        else:
            assert callable(ours) == callable(theirs)


@pytest.mark.parametrize(("variable", "choice"), [("1", "pure"), ("", "compiled")])
def test_the_environment_chooses(variable: str, choice: str) -> None:
    """SYNCBRIDGE_PURE_PYTHON selects the twins; empty counts as unset."""
    code = "import sys, syncbridge.kernels as k; print(k.IMPLEMENTATION, k.split(b'{}').render())"
    code += "; print('syncbridge_core.document' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"SYNCBRIDGE_PURE_PYTHON": variable},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert run.stdout.split("\n")[:2] == [f"{choice} b'{{}}'", str(choice == "compiled")]


def test_what_is_not_run_on_the_twins_has_no_kernel() -> None:
    """`make test-pure` leaves out tests on which the choice has no influence, and no others."""
    listed = re.search(r"^WITHOUT_KERNELS := (.+)$", (ROOT / "Makefile").read_text("utf-8"), re.M)
    assert listed is not None
    places = [ROOT / place for place in listed[1].split()]
    files = [file for place in places for file in ([place] if place.suffix else place.glob("*.py"))]
    names = [".".join(file.relative_to(ROOT / "tests").with_suffix("").parts) for file in files]
    run = subprocess.run(
        [sys.executable, "-c", IMPORTED, *names],
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert len(files) >= len(places)
    assert "[]" == run.stdout.strip()


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_twins_agree_on_the_fuzz_corpus(
    compiled: ModuleType, pure: ModuleType, path: Path
) -> None:
    """Seeds and past findings of the fuzzer are judged alike; two bytes of options come first."""
    data = path.read_bytes()[2:]

    for name in ("split", "compact"):
        assert outcome(compiled, name, data) == outcome(pure, name, data)
