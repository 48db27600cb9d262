"""Both merge kernels with the document kernels that belong to them, and a reference of RFC 7396."""

import importlib
from types import ModuleType
from typing import Any, NamedTuple

ABSENT = object()


class MergeKernel(NamedTuple):
    """One implementation: `merge` and the `documents` whose Doc and Split it takes."""

    merge: ModuleType
    documents: ModuleType


def load(compiled: bool) -> MergeKernel:
    if compiled:
        names = ("syncbridge_core.merge", "syncbridge_core.document")
    else:
        names = ("syncbridge.kernels._merge_py", "syncbridge.kernels._document_py")
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
