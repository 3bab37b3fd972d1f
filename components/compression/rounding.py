"""The weights of a network as a variant will store them, for a training that gets used to them.

Linear layers and tables are rounded by the code that makes the ONNX forms. What is stored only as products of matrices
(a last block's attention) stays as it is: the errors of the factors are not those of the product, and a network that
got used to them would be further from what is served. Two more things differ from a served graph: int8 forms round
activations and convolutions too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import nn

from components.compression.product import product_quantized
from components.compression.rowwise import quantized_rows
from components.networks.contract import PredictionNetwork
from components.settings.quantization import QuantizationAwareSettings, QuantizationSettings, RoundedForm
from components.storage.atomic import write_json

ROUNDING_FILE = "rounding.json"
"""Beside the weights of a network that was fine-tuned for a form: which form."""
Kind = Literal["linear", "table"]
_POSITIONS = "position"


class Stored(NamedTuple):
    """A weight that is rounded.

    Attributes:
        name: In the state dict.
        weight: ``(rows, width)``.
        kind: Which bits it has.
        added: What the network adds to it, which is stored with it; None where it adds nothing.
    """

    name: str
    weight: torch.Tensor
    kind: Kind
    added: torch.Tensor | None = None


class Rounding:
    """Rounds a network's weights to a form.

    Ranges and codebooks are searched when asked to, and from then on only followed: a search a step would cost more
    than the step.

    Args:
        settings: The form and its sizes.
    """

    def __init__(self, settings: QuantizationAwareSettings) -> None:
        self.settings = settings
        self._found: dict[str, Any] = {}

    def record(self) -> dict[str, Any]:
        """JSON-able; what the rounded weights depend on beside the weights."""
        return self.settings.model_dump(mode="json")

    def __call__(self, network: PredictionNetwork, anew: bool) -> dict[str, torch.Tensor]:
        """Rounded values of the same shapes, by name in the state dict; where something is added to a weight, the sum
        is rounded.

        Args:
            network: Stays as it is.
            anew: Search ranges and codebooks again.
        """
        if anew:
            self._found = {}
        return {stored.name: self._rounded(stored).to(stored.weight.device) for stored in stored_weights(network)}

    def _rounded(self, stored: Stored) -> torch.Tensor:
        whole, added = stored.weight.detach().cpu().float(), None
        if stored.added is not None:
            added = stored.added.detach().cpu().float()
            whole = whole + added
        rounder = _ROUNDERS[self.settings.form][stored.kind]
        found = rounder(whole.numpy(), self.settings, self._found.get(stored.name))
        if not isinstance(found, np.ndarray):
            self._found[stored.name] = found
            found = np.ascontiguousarray(found.restored())
        rounded = torch.from_numpy(found)
        return rounded if added is None else rounded - added


def write_rounding(folder: Path, settings: QuantizationAwareSettings) -> None:
    """Note beside a network's weights what they were fine-tuned for."""
    write_json(folder / ROUNDING_FILE, {"form": settings.form})


def rounded_as_trained(settings: QuantizationSettings, folder: Path) -> QuantizationSettings:
    """The settings by which a network is quantized: one that got used to the nearest codes keeps them as they are.

    Args:
        settings: As they are given.
        folder: Of the network's weights.
    """
    if not (folder / ROUNDING_FILE).is_file():
        return settings
    return settings.model_copy(update={"rounding": "nearest", "fine_tuning": None})


def stored_weights(network: PredictionNetwork) -> Iterator[Stored]:
    """Tables, the head, and the weights of linear layers that are stored themselves; a tied one once. Positions are
    small, and left alone."""
    head, seen, products = network.head, set(), network.multiplied_out
    for path, module in network.named_modules():
        if not isinstance(module, (nn.Embedding, nn.Linear)) or path.endswith(_POSITIONS):
            continue
        if f"{path}.weight" in products:
            continue
        weight = module.weight
        if id(weight) not in seen:
            seen.add(id(weight))
            kind: Kind = "table" if isinstance(module, nn.Embedding) or weight is head else "linear"
            yield Stored(f"{path}.weight", weight, kind, network.added_to(f"{path}.weight"))


def _channels(matrix: np.ndarray, settings: QuantizationAwareSettings, before: Any) -> np.ndarray:
    """Int8 with a scale an output channel, as ONNX Runtime's quantizer rounds a linear layer."""
    unit = np.maximum(np.abs(matrix).max(axis=1, keepdims=True) / 127, np.finfo(np.float32).tiny)
    return np.asarray(np.rint(matrix / unit) * unit, np.float32)


def _rows(bits: int) -> Callable[[np.ndarray, QuantizationAwareSettings, Any], Any]:
    return lambda matrix, settings, before: quantized_rows(matrix, bits, settings.table_block, before)


def _product(matrix: np.ndarray, settings: QuantizationAwareSettings, before: Any) -> Any:
    return product_quantized(matrix, settings.product_width, before)


_ROUNDERS: dict[RoundedForm, dict[Kind, Callable[[np.ndarray, QuantizationAwareSettings, Any], Any]]] = {
    "int8_table8": {"linear": _channels, "table": _rows(8)},
    "int8_table4": {"linear": _channels, "table": _rows(4)},
    "int4_table4": {"linear": _rows(4), "table": _rows(4)},
    "int4_table2": {"linear": _rows(4), "table": _rows(2)},
    "int4_product": {"linear": _rows(4), "table": _product},
}
