"""The tick: what the hub read goes through the session rules and the store, and out again."""
