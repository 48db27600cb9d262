"""`kernel`: each test of this folder runs on the compiled documents and on their pure twin."""

import importlib
from types import ModuleType

import pytest

COMPILED = "syncbridge_core.document"
PURE = "syncbridge.kernels._document_py"


@pytest.fixture(scope="session", params=[COMPILED, PURE], ids=["compiled", "pure"])
def kernel(request: pytest.FixtureRequest) -> ModuleType:
    """One of the two implementations; a missing extension is a failure, not a skip."""
    return importlib.import_module(request.param)


@pytest.fixture(scope="session")
def compiled() -> ModuleType:
    return importlib.import_module(COMPILED)


@pytest.fixture(scope="session")
def pure() -> ModuleType:
    return importlib.import_module(PURE)
