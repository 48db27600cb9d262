"""Requests of the rules and the shell to a store, its answers, and messages between nodes."""
