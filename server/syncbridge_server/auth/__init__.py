"""Who is calling: tokens, refresh rotation, revocation."""
