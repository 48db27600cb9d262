"""A simulated voice provider over real HTTP, with switchable faults."""
