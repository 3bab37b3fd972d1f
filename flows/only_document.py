"""A command that prints one JSON document prints nothing else: what its stages say goes to the errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def output_to_errors(wanted: bool = True) -> Iterator[None]:
    """Within the block what this process and its children print goes to the errors.

    Args:
        wanted: False: nothing is changed.
    """
    if not wanted:
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
