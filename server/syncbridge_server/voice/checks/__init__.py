"""State checks: compare the calls of channels with the provider's state."""
