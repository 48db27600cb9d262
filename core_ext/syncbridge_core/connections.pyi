"""The table of connections, for the other compiled modules only. See connections.pyx."""

from typing import Final

__all__ = ["CONNECTION_BYTES", "EVENT_BYTES"]

CONNECTION_BYTES: Final[int]
"""Size of the C record of one connection."""
EVENT_BYTES: Final[int]
"""Size of the C record that is reserved for the last event of each connection."""
