"""Messages between nodes, over Redis pub/sub."""
