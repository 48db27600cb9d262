"""Deadlines, pings and idle connections, for the other compiled modules only. See timers.pyx."""
