"""What lies in DVC's remote and in the store, and nobody refers to: notes, since nobody is worse for it."""

from __future__ import annotations

from flows.auditing.audited import Audited


def tell_orphans(audit: Audited) -> None:
    """Note them."""
