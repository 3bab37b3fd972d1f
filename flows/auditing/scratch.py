"""A folder for copies of data that are looked into, in the checkout: no kill leaves people's rows anywhere else."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.repository import main_checkout

SCRATCH = ".recstill/scratch"


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """A new folder, gone at the end; those that killed processes have left go first.

    Args:
        root: The checkout.
    """
    parent = main_checkout(root) / SCRATCH
    parent.mkdir(parents=True, exist_ok=True)
    parent.chmod(0o700)
    with _locked(parent, fcntl.LOCK_EX):
        for old in parent.iterdir():
            _remove_unless_in_use(old)
        folder = Path(tempfile.mkdtemp(dir=parent))
        mine = os.open(folder, os.O_RDONLY)
        fcntl.flock(mine, fcntl.LOCK_EX)  # the system ends it with the process
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(mine)


def _remove_unless_in_use(folder: Path) -> None:
    try:
        with _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
            shutil.rmtree(folder, ignore_errors=True)
    except OSError:  # somebody works in it, or has just removed it
        return


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)
