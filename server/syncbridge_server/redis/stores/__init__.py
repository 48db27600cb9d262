"""What is kept in Redis: the store's ports fulfilled over the scripts."""
