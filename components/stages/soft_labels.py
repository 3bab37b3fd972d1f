"""Score every training point with the teacher and keep the labels in the object store."""

from __future__ import annotations

import time

from components.settings.soft_labels import SoftLabelSettings
from components.settings.training import TrainerSettings
from components.soft_labels.calibration import UNCHANGED, calibrated
from components.soft_labels.inputs import read_inputs
from components.soft_labels.manifest import written
from components.soft_labels.writer import write_labels
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_file
from components.storage.object_store import open_store


def work(workspace: Workspace) -> None:
    """From ``dataset/`` and ``teacher/`` to the parts in the store and ``soft_labels/manifest.json``."""
    started = time.monotonic()
    settings = workspace.settings("soft_labels", SoftLabelSettings)
    trainer = workspace.settings("trainer", TrainerSettings)
    inputs = read_inputs(workspace.artifacts / "dataset", workspace.artifacts / "teacher", workspace.value("task"))
    store = open_store()
    points, outcomes = inputs.task.points, inputs.task.outcomes
    print(f"labelling {points:,} points for {outcomes:,} outcomes in {store.address}", flush=True)

    calibration = calibrated(inputs.teacher, inputs.task) if settings.calibrate else None
    if calibration is not None:
        print(
            f"calibrated on {calibration.events:,} validation events: temperature {calibration.temperature:g}, "
            f"{f'shift {calibration.shift:g}, ' if calibration.shift else ''}"
            f"NLL {calibration.nll_before:.4f} to {calibration.nll_after:.4f}, "
            f"ECE {calibration.ece_before:.4f} to {calibration.ece_after:.4f}",
            flush=True,
        )
    manifest = write_labels(store, inputs, settings, calibration or UNCHANGED, trainer.accelerator)
    with new_file(workspace.artifacts / "soft_labels" / "manifest.json") as path:
        path.write_bytes(written(manifest))
    quality = {
        "rows": manifest.rows,
        "parts": len(manifest.parts),
        "bytes": manifest.bytes,
        "bytes_per_row": round(manifest.bytes / manifest.rows, 2),
        "mean_top1_probability": round(manifest.mean("top_mass"), 6),
        "mean_kept_mass": round(manifest.mean("kept_mass"), 6),
        "cache_id": manifest.id,
        **({} if calibration is None else calibration.figures()),
    }
    workspace.write_metrics("soft_labels", quality, started)
    print(
        f"{manifest.bytes / 2**20:.1f} MiB, {quality['bytes_per_row']:.0f} bytes a point; "
        f"{manifest.mean('kept_mass'):.1%} of the teacher's mass is stored singly"
    )


if __name__ == "__main__":
    run_stage("soft_labels", work)
