"""Outgoing frames and the closing handshake, for the other compiled modules only. See sending.pyx."""
