"""The losses, written plainly: pure functions from a student's outputs and what the cache keeps of a teacher."""
