"""Pushing events to endpoints: `syncbridge deliver`, a process of its own.

In reading order: `guard` says where may be posted to, `sender` posts, `worker` serves one endpoint,
`process` all of them. The rules are in `syncbridge.events.delivery`.
"""
