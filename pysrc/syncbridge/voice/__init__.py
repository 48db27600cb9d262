"""Rules of calls and voice channels, and the data types of voice providers."""
