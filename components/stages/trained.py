"""What the stages that train have in common: a place to resume from, and what they leave behind."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.networks.contract import PredictionNetwork
from components.stages.workspace import Workspace
from components.tasks.contract import Measure
from components.training.fitting import FitResult, write_curves


@contextmanager
def training_scratch(workspace: Workspace, stage: str) -> Iterator[Path]:
    """The folder in which an interrupted training of this stage is resumed; gone once the stage has ended well."""
    folder = workspace.root / ".recstill" / "training" / f"{workspace.scenario}-{stage}"
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def write_training(
    workspace: Workspace,
    stage: str,
    networks: Sequence[PredictionNetwork],
    results: Sequence[FitResult],
    started: float,
    *,
    measure: Measure,
    earlier: Sequence[FitResult] = (),
    **further: Any,
) -> None:
    """Write ``curves/<stage>.csv`` and ``metrics/<stage>.json``.

    Args:
        workspace: The scenario.
        stage: Name in dvc.yaml.
        networks: What was trained.
        results: How it went, a network each.
        started: ``time.monotonic()`` at the start of the stage.
        measure: What was validated.
        earlier: How the training of those went that these have learned from, for the curves and the epochs.
        further: More figures for the metrics.
    """
    write_curves(workspace.artifacts / "curves" / f"{stage}.csv", [*earlier, *results])
    quality = {
        f"validation_{measure.key}": sum(result.best for result in results) / len(results),
        "epochs": sum(result.epochs for result in (*earlier, *results)),
        "parameters": sum(parameter.numel() for network in networks for parameter in network.parameters()),
        **further,
    }
    workspace.write_metrics(stage, quality, started)
