"""Redis: one I/O thread with automatic pipelining, pub/sub, scripts, the embedded server."""
