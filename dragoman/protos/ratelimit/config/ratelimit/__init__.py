"""Protobuf package, as in the path of its proto file."""
