"""A network on disk: ``architecture.json`` (every width) and ``weights.safetensors``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json, write_json
from components.storage.digests import file_digest, record_digest

ARCHITECTURE_FILE = "architecture.json"
WEIGHTS_FILE = "weights.safetensors"


def write_checkpoint(folder: Path, record: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> None:
    """Write a network into ``folder``, which must exist; the same network gives the same bytes.

    Args:
        folder: Where the two files go, normally inside ``new_folder``.
        record: The architecture record, JSON-able.
        weights: Tensors by parameter name. Tensors that share memory must be given once.
    """
    write_json(folder / ARCHITECTURE_FILE, dict(record))
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(weights.items())}
    save_file(contiguous, folder / WEIGHTS_FILE)


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The architecture record and the weights in ``folder``.

    Raises:
        DataError: A file is missing.
        IntegrityError: The weights are damaged or cut short.
    """
    record = read_json(folder / ARCHITECTURE_FILE)
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise DataError(f"{path} is missing", "Run the stage that makes it: `recstill run`.")
    try:
        return record, load_file(path)
    except (SafetensorError, OSError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", "Delete its folder and run again.") from None


def checkpoint_digest(folder: Path) -> str:
    """SHA-256 over the architecture record and the weights: the identity of the network."""
    return record_digest(
        {
            "architecture": record_digest(read_json(folder / ARCHITECTURE_FILE)),
            "weights": file_digest(folder / WEIGHTS_FILE),
        }
    )
