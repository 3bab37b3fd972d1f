"""Codec, writer and reader of the soft-label cache."""
