"""From a teacher's logits to the few numbers a point that are stored, and back.

A codec keeps what it needs as arrays with one row a point: ids in the smallest integer type that holds K, natural logs
of probabilities in half precision (11 bits: a stored probability is within 0.4 % of the true one down to e**-16).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from components.errors import SettingsError, TrainingError
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.labels import SoftLabels

__all__ = ["Codec", "Column", "Dense", "SoftLabels", "TopKTail", "codec_for", "codec_of"]

# Half precision has no use for -inf: a log-probability of -65504 is a probability of 0 in any arithmetic.
_LOWEST = float(torch.finfo(torch.float16).min)


class Column(NamedTuple):
    """The form of one stored array: its type, and its shape without the rows."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class Codec(ABC):
    """What of a distribution over K outcomes is stored."""

    def __init__(self, outcomes: int) -> None:
        self.outcomes = outcomes

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """The codec's name and settings, as they stand in a manifest and in the cache id."""

    @property
    @abstractmethod
    def columns(self) -> dict[str, Column]:
        """The stored arrays."""

    @abstractmethod
    def encode(self, logits: torch.Tensor) -> dict[str, np.ndarray]:
        """The arrays, N rows each, that are stored of logits ``(N, K)`` float32 on any device.

        Raises:
            TrainingError: A logit is NaN or +inf, or all of a row are -inf.
        """

    @abstractmethod
    def decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        """The labels in stored arrays of N rows."""

    @property
    def bytes_per_row(self) -> int:
        """Bytes that a point takes."""
        return sum(int(np.prod(column.shape)) * column.dtype.itemsize for column in self.columns.values())


class Dense(Codec):
    """Every outcome: ``log_probs = log softmax(logits)``, 2 K bytes a point. For small K."""

    def record(self) -> dict[str, Any]:
        """``{"name": "dense"}``."""
        return {"name": "dense"}

    @property
    def columns(self) -> dict[str, Column]:
        """``log_probs`` ``(N, K)`` float16."""
        return {"log_probs": Column(np.dtype(np.float16), (self.outcomes,))}

    def encode(self, logits: torch.Tensor) -> dict[str, np.ndarray]:
        """See :class:`Dense`."""
        return {"log_probs": _half(logits.float() - _log_mass(logits))}

    def decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        """Labels without ids and without a tail."""
        return SoftLabels(None, torch.from_numpy(columns["log_probs"]).float(), None, self.outcomes)


class TopKTail(Codec):
    """The k most probable outcomes, and the log of the mass that all others have together.

    ``log_probs_i = logit_i - log sum_j exp(logit_j)`` for the k largest, ``tail`` the same with the log-sum-exp of
    the others' logits in place of ``logit_i``. A student is then compared over k + 1 outcomes; unlike the k
    renormalised to 1, this does not teach it that nothing else ever happens (the bias that Anshumann et al., "Sparse
    Logit Sampling: Accelerating Knowledge Distillation in LLMs", ACL 2025, section 3, measure for plain top-k).
    4 k + 2 bytes a point (6 k + 2 above 65,536 outcomes). Outcomes of the same logit: the lower id is kept first.

    Args:
        outcomes: K.
        k: How many are stored singly, all K when it is larger than that.
    """

    def __init__(self, outcomes: int, k: int) -> None:
        super().__init__(outcomes)
        self.k = min(k, outcomes)

    def record(self) -> dict[str, Any]:
        """``{"name": "top_k_tail", "k": k}``."""
        return {"name": "top_k_tail", "k": self.k}

    @property
    def columns(self) -> dict[str, Column]:
        """``ids`` ``(N, k)``, ``log_probs`` ``(N, k)`` float16, ``tail`` ``(N,)`` float16."""
        half = np.dtype(np.float16)
        return {
            "ids": Column(_id_type(self.outcomes), (self.k,)),
            "log_probs": Column(half, (self.k,)),
            "tail": Column(half, ()),
        }

    def encode(self, logits: torch.Tensor) -> dict[str, np.ndarray]:
        """See :class:`TopKTail`."""
        logits = logits.float()
        total = _log_mass(logits)
        values, ids = _largest(logits, self.k)
        # The others are summed by themselves: 1 - (sum of the k) would lose a small tail to rounding.
        others = torch.logsumexp(logits.scatter(1, ids, -torch.inf), dim=1) - total.squeeze(1)
        return {
            "ids": ids.cpu().numpy().astype(_id_type(self.outcomes)),
            "log_probs": _half(values - total),
            "tail": _half(others),
        }

    def decode(self, columns: Mapping[str, np.ndarray]) -> SoftLabels:
        """Labels with ids and a tail."""
        return SoftLabels(
            torch.from_numpy(columns["ids"].astype(np.int64)),
            torch.from_numpy(columns["log_probs"]).float(),
            torch.from_numpy(columns["tail"]).float(),
            self.outcomes,
        )


def codec_for(settings: SoftLabelSettings, outcomes: int) -> Codec:
    """The codec that the settings ask for, over K outcomes."""
    return codec_of({"name": settings.codec, "k": settings.k}, outcomes)


def codec_of(record: Mapping[str, Any], outcomes: int) -> Codec:
    """The codec that a manifest names.

    Raises:
        SettingsError: It is not known.
    """
    match record.get("name"):
        case "dense":
            return Dense(outcomes)
        case "top_k_tail":
            return TopKTail(outcomes, int(record["k"]))
        case name:
            raise SettingsError(f"unknown codec of soft labels {name!r}", "Known: dense, top_k_tail.")


def _log_mass(logits: torch.Tensor) -> torch.Tensor:
    """``log sum_j exp(logit_j)``, ``(N, 1)``, of logits that make a distribution."""
    total = torch.logsumexp(logits.float(), dim=1, keepdim=True)
    if not bool(total.isfinite().all()):
        raise TrainingError("the teacher's logits are not finite (NaN or infinity)", "Train the teacher again.")
    return total


def _largest(logits: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Values and ids ``(N, k)`` of the largest logits, in descending order, equal ones by ascending id."""
    # One more than asked for shows whether the k-th place is shared.
    values, ids = torch.topk(logits, min(k + 1, logits.shape[1]), dim=1)
    tied = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    values, ids = values[:, :k].clone(), ids[:, :k].clone()
    if len(tied):
        # topk leaves the order of equal values open, and with it the bytes of the cache.
        in_order, places = torch.sort(logits[tied], dim=1, descending=True, stable=True)
        values[tied], ids[tied] = in_order[:, :k], places[:, :k]
    return values, ids


def _half(logs: torch.Tensor) -> np.ndarray:
    return logs.clamp(_LOWEST, 0.0).half().cpu().numpy()


def _id_type(outcomes: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if outcomes <= 1 << 16 else np.int32)
