"""Which artifact came from what."""
