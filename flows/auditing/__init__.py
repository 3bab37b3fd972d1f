"""The audit: what is in a commit, a remote and a store, where it came from, and whether it is still there."""
