"""Lightning's checkpoints without pickle: tensors as safetensors, everything else as JSON, in one file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import CheckpointIO
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from components.errors import IntegrityError
from components.storage.atomic import new_file

_STRUCTURE = "structure"


class SafetensorsCheckpointIO(CheckpointIO):
    """Writes and reads whole training states, atomically."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint.

        Raises:
            TypeError: It holds something that is neither a tensor nor plain data.
        """
        tensors: dict[str, torch.Tensor] = {}
        structure = json.dumps(_without_tensors(checkpoint, tensors, "checkpoint"), allow_nan=False)
        with new_file(Path(path)) as temporary:
            save_file(tensors, temporary, metadata={_STRUCTURE: structure})

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read a checkpoint; tensors are on the CPU.

        Raises:
            IntegrityError: The file is damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                structure = json.loads(file.metadata()[_STRUCTURE])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        except (SafetensorError, OSError, TypeError, KeyError, json.JSONDecodeError) as error:
            raise IntegrityError(f"{path} is damaged: {error}", "Delete it: training then starts anew.") from None
        checkpoint: dict[str, Any] = _with_tensors(structure, tensors)
        return checkpoint

    def remove_checkpoint(self, path: str | Path) -> None:
        """Delete a checkpoint."""
        Path(path).unlink(missing_ok=True)


def _without_tensors(value: Any, tensors: dict[str, torch.Tensor], name: str) -> Any:
    """JSON of ``value``: what JSON does not have becomes a list that starts with its kind."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else ["float", repr(value)]
    if isinstance(value, torch.Tensor):
        # A copy of its own memory: safetensors refuses tensors that share any.
        tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return ["tensor", name]
    if isinstance(value, dict):
        entries = [
            [_without_tensors(key, tensors, name), _without_tensors(entry, tensors, f"{name}/{key}")]
            for key, entry in value.items()
        ]
        return ["dict", entries]
    if isinstance(value, list | tuple):
        entries = [_without_tensors(entry, tensors, f"{name}/{number}") for number, entry in enumerate(value)]
        return ["tuple" if isinstance(value, tuple) else "list", entries]
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__} (at {name})")


def _with_tensors(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """The inverse of :func:`_without_tensors`."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "float":
        return float(content)
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {_with_tensors(key, tensors): _with_tensors(entry, tensors) for key, entry in content}
    entries = [_with_tensors(entry, tensors) for entry in content]
    return tuple(entries) if kind == "tuple" else entries
