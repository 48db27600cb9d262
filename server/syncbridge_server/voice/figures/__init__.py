"""Metrics of calls and webhooks: counters, quality measurements, surveys, analytics."""
