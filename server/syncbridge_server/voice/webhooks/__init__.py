"""Applies stored webhooks to their channels."""
