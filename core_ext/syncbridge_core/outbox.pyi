"""Shared frames and outgoing queues, for the other compiled modules only. See outbox.pyx."""
