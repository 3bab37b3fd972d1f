"""Finalizes a run in a process of its own, which kills itself (SIGKILL) before the step of that number.

``python -m tests.stack.killed_finalizing CHECKOUT WORKTREE STEP``; the number of steps itself: after the last one.
``none``: it finishes, unless somebody else kills it. It says when it begins.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from flows import finalizing
from tests.unit.flows.small_checkout import VERDICT

KEY = "fedcba9876543210" * 4


def main(checkout: str, worktree: str, step: str) -> None:
    if step != "none":
        number = int(step)
        stop = ("stop", lambda work: os.kill(os.getpid(), signal.SIGKILL))
        finalizing.STEPS = (*finalizing.STEPS[:number], stop, *finalizing.STEPS[number:])
    run = finalizing.FinishedRun(Path(checkout), Path(worktree), "synthetic", KEY, VERDICT)
    print("begins", flush=True)
    print(json.dumps(asdict(finalizing.finalize(run, lambda line: None))))


if __name__ == "__main__":
    main(*sys.argv[1:])
