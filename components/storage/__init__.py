"""Bytes: atomic files, digests, checkpoints, the object store."""
