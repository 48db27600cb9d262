"""What the server asks of what it stands on: the store, the bus, the voice provider."""
