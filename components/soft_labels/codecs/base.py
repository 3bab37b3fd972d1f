"""What every codec does: from a teacher's logits to the few numbers a point that are stored, and back.

A codec keeps what it needs as arrays with one row a point: ids in the smallest integer type that holds K, natural logs
of probabilities in half precision (11 bits: a stored probability is within 0.4 % of the true one down to e**-16).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from components.errors import TrainingError
from components.soft_labels.labels import SoftLabels

HALF = np.dtype(np.float16)
# Half precision has no use for -inf: a log-probability of -65504 is a probability of 0 in any arithmetic.
LOWEST = float(torch.finfo(torch.float16).min)


class Column(NamedTuple):
    """The form of one stored array: its type, and its shape without the rows."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Codec(ABC):
    """What of a distribution over K outcomes is stored, and whether the teacher's hidden state lies beside it.

    Args:
        outcomes: K.
        hidden_dim: Width of the teacher's last layer when its hidden states are stored too, else 0. They take
            2 bytes a value, in half precision.
    """

    name: ClassVar[str]
    """As it stands in params.yaml and in a manifest."""

    uniforms: ClassVar[int] = 0
    """Random numbers that a row takes; 0 when nothing is left to chance."""

    def __init__(self, outcomes: int, hidden_dim: int = 0) -> None:
        self.outcomes, self.hidden_dim = outcomes, hidden_dim

    def record(self) -> dict[str, Any]:
        """The codec's name and settings, as they stand in a manifest and in the cache id."""
        hidden = {"hidden_dim": self.hidden_dim} if self.hidden_dim else {}
        return {"name": self.name, **self._options(), **hidden}

    @property
    def columns(self) -> dict[str, Column]:
        """The stored arrays."""
        hidden = {"hidden": Column(HALF, (self.hidden_dim,))} if self.hidden_dim else {}
        return {**self._columns(), **hidden}

    @property
    def bytes_per_row(self) -> int:
        """Bytes that a point takes."""
        return sum(int(np.prod(column.shape)) * column.dtype.itemsize for column in self.columns.values())

    def encode(
        self, logits: torch.Tensor, *, uniforms: np.ndarray | None = None, hidden: torch.Tensor | None = None
    ) -> dict[str, np.ndarray]:
        """The arrays, N rows each, that are stored.

        Args:
            logits: ``(N, K)``, on any device; may be overwritten.
            uniforms: ``(N, self.uniforms)`` float64 from [0, 1), for codecs that draw.
            hidden: ``(N, hidden_dim)``, when hidden states are stored.

        Raises:
            TrainingError: A logit is NaN or +inf, or all of a row are -inf; or a hidden state is not finite or is
                beyond half precision.
        """
        columns = self._encode(logits.float(), uniforms)
        if self.hidden_dim:
            if hidden is None or hidden.shape[1] != self.hidden_dim:
                raise ValueError(f"hidden states of width {self.hidden_dim} are to be stored")
            halves = hidden.half()
            if not bool(halves.isfinite().all()):
                raise TrainingError("the teacher's hidden states do not fit half precision", "Store none of them.")
            columns["hidden"] = halves.cpu().numpy()
        return columns

    def decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        """The labels in stored arrays of N rows."""
        labels = self._decode(columns)
        if not self.hidden_dim:
            return labels
        return labels._replace(hidden=torch.from_numpy(columns["hidden"].astype(np.float32)))

    def masses(self, columns: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Of each row ``(N,)`` float32: the largest probability that is stored, and the mass of all that are."""
        probabilities = np.exp(columns["log_probs"].astype(np.float32))
        # Half precision may add up to a little more than everything.
        return probabilities.max(axis=1), np.minimum(probabilities.sum(axis=1), 1.0)

    def _options(self) -> dict[str, Any]:
        return {}

    @abstractmethod
    def _columns(self) -> dict[str, Column]: ...

    @abstractmethod
    def _encode(self, logits: torch.Tensor, uniforms: np.ndarray | None) -> dict[str, np.ndarray]: ...

    @abstractmethod
    def _decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels: ...


def half(logs: torch.Tensor) -> np.ndarray:
    """Natural logs of probabilities as they are stored."""
    return logs.clamp(LOWEST, 0.0).half().cpu().numpy()


def full(stored: np.ndarray) -> torch.Tensor:
    """Stored halves in single precision."""
    return torch.from_numpy(stored.astype(np.float32))


def require_finite(values: torch.Tensor) -> None:
    """Refuse what came from logits that make no distribution.

    Raises:
        TrainingError: A value is NaN or infinite.
    """
    if not bool(values.isfinite().all()):
        raise TrainingError("the teacher's logits are not finite (NaN or infinity)", "Train the teacher again.")
