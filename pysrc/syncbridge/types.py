"""Names for the plain types that travel between the modules."""

from typing import NewType

SessionId = NewType("SessionId", str)
"""Canonical lower-case UUID text."""

Epoch = NewType("Epoch", str)
"""Random id of a session's lineage; a new one means that versions started again at 1."""

UnixMillis = NewType("UnixMillis", int)
"""Milliseconds since 1970, UTC."""
