"""From pending events to Python objects, for the other compiled modules only. See delivering.pyx."""
