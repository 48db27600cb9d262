"""Both merge kernels with the kernels that belong to them, and a reference of RFC 7396."""

import importlib
from types import ModuleType
from typing import Any, NamedTuple

ABSENT = object()


class MergeKernel(NamedTuple):
    """One implementation: `merge`, the `documents` whose Doc and Split it takes, the imprints."""

    merge: ModuleType
    documents: ModuleType
    values: ModuleType


def load(compiled: bool) -> MergeKernel:
    if compiled:
        names = [f"syncbridge_core.{name}" for name in ("merge", "document", "canonical")]
    else:
        names = [f"syncbridge.kernels._{name}_py" for name in ("merge", "document", "canonical")]
    return MergeKernel(*map(importlib.import_module, names))


KERNELS = {"compiled": load(True), "pure": load(False)}


def reference(target: Any, patch: Any) -> Any:
    """MergePatch of RFC 7396 section 2, on parsed values; ABSENT for no target."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = reference(result.get(name, ABSENT), value)
    return result
