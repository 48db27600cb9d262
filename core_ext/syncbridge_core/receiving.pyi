"""Reading and the rate limit, for the other compiled modules only. See receiving.pyx."""
