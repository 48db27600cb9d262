"""How often: token buckets, and attempts that fail."""
