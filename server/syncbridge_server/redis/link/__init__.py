"""The connection to Redis: one I/O thread, its pipelines, what travels, the embedded server."""
