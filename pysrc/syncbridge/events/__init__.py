"""Events: what a back end is told of sessions, devices and calls. Pure rules.

In reading order: `kinds` are the events and what they say; `outbox` makes them of what scripts have
written; `voice` makes those of calls; `selection` says which ones somebody wants; `cursor` is a
place in the log. `delivery` is what becomes of what is pushed, `batches` what is pushed together.
docs/events.md describes them for their readers.
"""
