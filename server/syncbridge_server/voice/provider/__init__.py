"""Providers of calls, over HTTP: their dialects, budget, breaker and webhooks."""
