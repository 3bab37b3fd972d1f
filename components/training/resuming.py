"""Where an interrupted training goes on, and when it must not."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch

from components.errors import IntegrityError
from components.networks.contract import PredictionNetwork
from components.storage.digests import array_digest, file_digest, record_digest
from components.training.checkpoint_io import SafetensorsCheckpointIO

_CODE = ("networks", "tasks", "training")


def training_digest(network: PredictionNetwork, inputs: dict[str, Any]) -> str:
    """SHA-256 over all that decides how a training goes: only a training with the same may be resumed.

    Args:
        network: As it is before training; its weights count.
        inputs: JSON-able: settings, seed, digests of data and labels.
    """
    weights = {name: array_digest(_as_bytes(tensor)) for name, tensor in network.state_dict().items()}
    return record_digest(
        {
            **inputs,
            "architecture": network.record(),
            "weights": weights,
            **code_record(),
        }
    )


def code_record() -> dict[str, Any]:
    """The code that trains, by its digests and by the versions of its libraries; JSON-able."""
    components = Path(__file__).parents[1]
    sources = sorted(path for package in _CODE for path in (components / package).rglob("*.py"))
    return {
        "code": [[path.name, file_digest(path)] for path in sources],
        "versions": [torch.__version__, pl.__version__],
    }


def resume_file(folder: Path, digest: str) -> Path:
    """Where the state of a training lies, if there is one to go on from.

    States of other trainings in ``folder`` are deleted, and one that cannot be read.
    """
    path = folder / f"{digest[:32]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    for other in folder.iterdir():
        if other != path:
            shutil.rmtree(other, ignore_errors=True) if other.is_dir() else other.unlink(missing_ok=True)
    if path.is_file():
        try:
            SafetensorsCheckpointIO().load_checkpoint(path)
        except IntegrityError:
            path.unlink()
    return path


def _as_bytes(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy()
