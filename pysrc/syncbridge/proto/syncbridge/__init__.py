"""Protobuf packages below `syncbridge`."""
