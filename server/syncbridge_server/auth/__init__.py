"""Authentication: tokens, refresh rotation, revocation."""
