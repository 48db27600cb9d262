"""Calls: what a voice provider must do, what it reports, and the rules over both."""
