"""Exit statuses of the commands of the audit, for scripts: 0 all well, 1 could not be done, 2 wrong usage, and this."""

FOUND = 3
"""It was done, and something was found: damage, a recall, a difference."""
