"""Events on a node: whether they are written, the way from outboxes to the log, and reading it.

In reading order: `switch`, `carrier` (with `outboxes`, the part of it without waiting), `reading`.
"""
