"""The connections to Redis: pipelines, what travels, the embedded server."""
