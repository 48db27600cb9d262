"""The shell of voice: providers over HTTP."""
