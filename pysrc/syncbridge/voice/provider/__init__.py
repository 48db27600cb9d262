"""What a provider of calls is asked, answers and reports; its errors, breaker and budget."""
