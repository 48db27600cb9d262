"""Looks at calls: what the provider says of them, compared with what the channels know."""
