"""What routes share: problems, bodies, encodings, rates, ready answers."""
