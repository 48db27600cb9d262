"""The hot path, compiled: sockets and frames (`hub`), JSON documents (`document`), load (`swarm`).

Nothing here imports another package of the project, and nothing here decides policy.
"""
