"""Where bytes arrive: accept, look at the first bytes, hand over to the hub or to Hypercorn."""
