"""Protobuf package `syncbridge.v1`: syncbridge.proto, and what protoc makes of it."""
