"""Outgoing frames and closing handshakes, for other compiled modules only. See sending.pyx."""
