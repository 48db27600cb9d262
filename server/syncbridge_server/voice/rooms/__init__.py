"""Rooms at the provider: opened, entered, moved, handed over, left, and what is due in them."""
