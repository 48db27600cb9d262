"""The two implementations offer one interface, and the environment chooses between them."""

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.kernels.json_cases import outcome

CORPUS = Path(__file__).parent.parent / "fuzz" / "corpus" / "document"


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


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_the_twins_agree_on_the_fuzz_corpus(
    compiled: ModuleType, pure: ModuleType, path: Path
) -> None:
    """Seeds and past findings of the fuzzer are judged alike; two bytes of options come first."""
    data = path.read_bytes()[2:]

    for name in ("split", "compact"):
        assert outcome(compiled, name, data) == outcome(pure, name, data)
