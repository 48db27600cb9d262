"""Webhooks that were kept take effect in the channels they are about."""
