"""Voice providers over HTTP: API dialects, request budget, circuit breaker and webhooks."""
