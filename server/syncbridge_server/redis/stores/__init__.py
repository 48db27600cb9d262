"""The ports of the store, implemented with the scripts."""
