"""Rates and budgets: token buckets, retries with backoff, budgets of users."""
