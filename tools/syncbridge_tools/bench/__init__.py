"""The load generator behind `syncbridge bench`."""
