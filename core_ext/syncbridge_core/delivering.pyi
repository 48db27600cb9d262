"""Pending events to Python objects, for other compiled modules only. See delivering.pyx."""
