"""Redis: connections with automatic pipelining, pub/sub, scripts, the embedded server."""
