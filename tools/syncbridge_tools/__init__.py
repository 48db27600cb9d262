"""Tools beside the server: the load generator and a stand-in voice provider."""
