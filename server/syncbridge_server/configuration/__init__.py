"""Settings as an operator gives them: files, secrets made for development, and their pages."""
