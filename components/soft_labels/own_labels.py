"""Soft labels that one stage makes of networks it has at hand, learns from, and needs no more."""

from __future__ import annotations

from pathlib import Path

from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.calibration import UNCHANGED, calibrated
from components.soft_labels.inputs import read_inputs
from components.soft_labels.manifest import written
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.writer import write_labels
from components.storage.atomic import new_file
from components.storage.folder_store import FolderStore

TEACHER = "teacher"
"""Folder of the networks that count as one teacher, in the one that :func:`own_labels` is given."""

LABELS = "labels"
"""Folder of their labels there."""

MANIFEST = "labels.json"
"""There once all labels are."""

_FETCHED = "fetched-labels"
_FEW_OUTCOMES = 64


def settings_for(outcomes: int) -> SoftLabelSettings:
    """What is kept of a distribution where nothing else is asked for.

    Args:
        outcomes: K.
    """
    if outcomes == 1:
        return SoftLabelSettings(codec="logit")
    return SoftLabelSettings(codec="dense" if outcomes <= _FEW_OUTCOMES else "top_k_tail")


def own_labels(
    folder: Path,
    dataset: Path,
    task: str,
    settings: SoftLabelSettings,
    accelerator: str,
    *,
    workers: int | None = None,
) -> SoftLabelReader:
    """The labels of the teacher in ``folder``; what of them is there is checked and not made again.

    Args:
        folder: Holds the networks in ``teacher/``, and gets the labels: the object store need not know of them.
        dataset: Folder of the prepared data set.
        task: Its name.
        settings: What is kept of a distribution.
        accelerator: As in the ``trainer`` settings.
        workers: See :func:`~components.soft_labels.writer.write_cache`.

    Raises:
        RecstillError: Whatever reading the two, or making the labels raises.
    """
    inputs = read_inputs(dataset, folder / TEACHER, task)
    calibration = calibrated(inputs.teacher, inputs.task) if settings.calibrate else UNCHANGED
    store = FolderStore((folder / LABELS).resolve())
    manifest = write_labels(store, inputs, settings, calibration, accelerator, workers=workers)
    with new_file(folder / MANIFEST) as path:
        path.write_bytes(written(manifest))
    return SoftLabelReader(store, manifest, folder / _FETCHED)
