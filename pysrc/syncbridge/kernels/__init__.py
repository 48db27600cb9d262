"""The one place that chooses between compiled kernels and their pure twins.

`SYNCBRIDGE_PURE_PYTHON=1` selects the twins. There is no silent fallback: without the variable a
missing extension is an ImportError, because a server that is ten times slower without saying so
is an outage. `IMPLEMENTATION` names the choice; `/health` shows it.

A type checker sees the compiled names only; that the twins agree is the matter of tests/kernels.
"""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING or not os.environ.get("SYNCBRIDGE_PURE_PYTHON"):
    from syncbridge_core.canonical import imprint, spelling, spellings
    from syncbridge_core.document import (
        DEFAULT_LIMITS,
        Doc,
        DocumentError,
        DocumentLimits,
        Split,
        compact,
        quote,
        render_pairs,
        split,
    )
    from syncbridge_core.http1 import Fields, Response, split_head
    from syncbridge_core.merge import compose, merge3, merge_patch
    from syncbridge_core.throttle import RESTED, Throttle

    IMPLEMENTATION = "compiled"
else:
    from syncbridge.kernels._canonical_py import imprint, spelling, spellings
    from syncbridge.kernels._document_py import (
        DEFAULT_LIMITS,
        Doc,
        DocumentError,
        DocumentLimits,
        Split,
        compact,
        quote,
        render_pairs,
        split,
    )
    from syncbridge.kernels._http1_py import Fields, Response, split_head
    from syncbridge.kernels._merge_py import compose, merge3, merge_patch
    from syncbridge.kernels._throttle_py import RESTED, Throttle

    IMPLEMENTATION = "pure"

__all__ = [
    "DEFAULT_LIMITS",
    "IMPLEMENTATION",
    "RESTED",
    "Doc",
    "DocumentError",
    "DocumentLimits",
    "Fields",
    "Response",
    "Split",
    "Throttle",
    "compact",
    "compose",
    "imprint",
    "merge3",
    "merge_patch",
    "quote",
    "render_pairs",
    "spelling",
    "spellings",
    "split",
    "split_head",
]
