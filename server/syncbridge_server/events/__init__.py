"""Events: whether they are written, the way from outboxes to the log, reading it, and pushing.

In reading order: `switch`, `carrier` (with `outboxes`, its part without waiting, and `expiry`),
`reading`; then `syncbridge deliver`, a process of its own: `guard` says where may be posted to,
`sender` posts, `worker` serves one endpoint, `process` all of them. `assembly` is what a node has.
"""
