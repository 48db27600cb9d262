"""Rooms at the provider: opening, tokens, migration, handover, leaving and due work."""
