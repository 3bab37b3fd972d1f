"""Ctrl-C and kill -9 in training: a prompt and quiet end, and a rerun that goes on to the same weights."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from components.storage.digests import folder_digest
from tests.end_to_end.conftest import Checkout

# Long enough that the second epoch is not the last one when the signal arrives.
LONGER = ("--set", "scenarios.synthetic.teacher.optimization.max_epochs=40")
FLAT = ("--set", "scenarios.synthetic.teacher.optimization.patience=40")


def signalled_in_training(checkout: Checkout, number: signal.Signals) -> tuple[int, str]:
    """Start a run in a process group of its own and signal the group, as a terminal does, once the teacher trains."""
    command = ("recstill", "run", "synthetic", *LONGER, *FLAT)
    run = subprocess.Popen(
        command,
        cwd=checkout.root,
        env=checkout.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    printed = ""
    for line in run.stdout:
        printed += line
        if "member-0 epoch 2/40" in line:
            break
    os.killpg(run.pid, number)
    printed += run.stdout.read()
    return run.wait(timeout=60), printed


def unfinished(folder: Path) -> list[Path]:
    """Temporary files and folders: everything that Recstill writes first has a dot in front of its name."""
    return [path for path in folder.rglob(".*") if path.name != ".gitignore"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_an_interrupted_training_ends_at_once_and_goes_on_to_the_same_weights(
    another: Checkout, number: signal.Signals
) -> None:
    status, printed = signalled_in_training(another, number)
    if number == signal.SIGINT:
        assert status == 130
        assert "Traceback" not in printed and "ERROR" not in printed
        assert "nothing half-written is left" in printed
    artifacts = another.root / "artifacts/synthetic"
    assert not (artifacts / "teacher").exists() and unfinished(artifacts) == []
    printed = another.succeed("python", "-m", "components.stages.train_teacher", "synthetic")
    assert "member-0 resumes after epoch" in printed and "epoch 1/40" not in printed
    resumed = folder_digest(artifacts / "teacher")
    printed = another.succeed("python", "-m", "components.stages.train_teacher", "synthetic")
    assert "epoch 1/40" in printed, "what an interrupted training left is gone once it has ended"
    assert folder_digest(artifacts / "teacher") == resumed
