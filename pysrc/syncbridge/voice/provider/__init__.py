"""Voice providers: requests, answers, webhooks, errors, circuit breaker and budget."""
