"""The files of ``quantized/`` and the list of them: each variant checked on real histories before it is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.compression.export import export_onnx, model_bytes
from components.compression.fine_tuning import FineTunedGraphs
from components.compression.item_index import Kind, index_beside
from components.compression.quantization import bits_of, quantized
from components.compression.running import first_feeds, outputs_of
from components.compression.searched import Searched, searched
from components.errors import CompressionError
from components.networks.contract import PredictionNetwork
from components.settings.quantization import QuantizationSettings, VariantName
from components.storage.digests import file_digest
from components.tasks.batch import Feed
from components.tasks.contract import Task

PARITY = 1e-5
"""Largest difference of a score between torch and ONNX Runtime before quantization, as a share of the largest score
(or of 1, where that is smaller)."""


@dataclass(frozen=True)
class VariantIndex:
    """The index of a variant.

    Attributes:
        file: In the same folder.
        bytes: Its size.
        sha256: Of its bytes.
        kind: ``exact``, ``ivf`` or ``hnsw``.
        bits: Of a value of an item's vector.
        effort: Lists that are read, or candidates that are kept, for the recall; 0 of an exact one.
        recall: Share of the items of exact answers that it finds, on validation histories.
        recall_of: Items of such an answer.
        histories: How many of them.
    """

    file: str
    bytes: int
    sha256: str
    kind: Kind
    bits: int
    effort: int
    recall: float
    recall_of: int
    histories: int


@dataclass(frozen=True)
class Variant:
    """One entry of ``variants.json``.

    Attributes:
        name: ``<made_from>.<form>``.
        file: In the same folder.
        bytes: Its size; with an index, that of both files.
        sha256: Of the file's bytes, which name the digest of the index.
        made_from: ``pruned``, ``student`` or ``teacher_member``.
        from_digest: Digest of that checkpoint.
        form: A variant of the settings.
        weight_bits: Of linear weights.
        activation_bits: Of the inputs of linear layers.
        table_bits: Of the item table.
        index: Where items are searched for, what is known of the index; None: a graph scores them all.
    """

    name: str
    file: str
    bytes: int
    sha256: str
    made_from: str
    from_digest: str
    form: VariantName
    weight_bits: int
    activation_bits: int
    table_bits: int
    index: VariantIndex | None = None

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        record = asdict(self)
        if self.index is None:
            del record["index"]
        return record


def write_variants(
    folder: Path,
    network: PredictionNetwork,
    forms: Sequence[VariantName],
    settings: QuantizationSettings,
    calibration: Sequence[Feed],
    *,
    task: Task,
    made_from: str,
    from_digest: str,
) -> Iterator[tuple[Variant, float]]:
    """Write the variants of one network one after the other, each with its overlap of the best outcomes with torch.

    Args:
        folder: Where ``<made_from>.<form>.onnx`` go, and ``.faiss`` beside it where there is an index; must exist.
        network: In evaluation mode.
        forms: Which variants.
        settings: Block and codebook sizes, and how weights are rounded.
        calibration: Feeds of training points, for activation ranges and codes, and the first of them for the checks.
        task: Whose feeds they are, and how many of the best outcomes an answer shows.
        made_from: What ``network`` is.
        from_digest: Digest of its checkpoint.

    Raises:
        CompressionError: The exported graph is not the network's function, a variant's scores are not finite, or an
            index does not find what it has to.
        SettingsError: A library that a variant needs is not installed.
    """
    model = export_onnx(network)
    checked = first_feeds(calibration)
    expected = reference_scores(network, checked, task.inputs_of)
    check_parity(outputs_of(model, checked), expected)
    fine_tune = None if settings.fine_tuning is None else FineTunedGraphs(network, model, task, settings.fine_tuning)
    for form in forms:
        name = f"{made_from}.{form}"
        path, index = folder / f"{name}.onnx", None
        if form == "int8_index":
            found = searched(model, settings, calibration, task)
            overlap = _found_overlap(found, checked, expected, task.best_of)
            path.write_bytes(model_bytes(found.encoder))
            index = _write_index(index_beside(path), found, task.best_of)
        else:
            variant = quantized(model, form, settings, calibration, fine_tune)
            overlap = top_overlap(outputs_of(variant, checked), expected, task.best_of)
            path.write_bytes(model_bytes(variant))
        size, digest = path.stat().st_size + (0 if index is None else index.bytes), file_digest(path)
        bits = bits_of(form, settings)
        yield Variant(name, path.name, size, digest, made_from, from_digest, form, *bits, index), overlap


def _write_index(path: Path, found: Searched, best_of: int) -> VariantIndex:
    path.write_bytes(found.index.content())
    index = found.index
    return VariantIndex(
        path.name,
        path.stat().st_size,
        file_digest(path),
        index.kind,
        found.bits,
        index.effort,
        round(found.recall, 6),
        best_of,
        found.histories,
    )


def _found_overlap(found: Searched, feeds: Sequence[Feed], expected: np.ndarray, best_of: int) -> float:
    """As :func:`top_overlap`, of the items that are found."""
    top = min(best_of, expected.shape[1])
    vectors = outputs_of(found.encoder, feeds)
    answers = found.index.search(vectors, [top] * len(vectors))
    wanted = np.argpartition(-expected, top - 1, axis=1)[:, :top]
    return float(np.mean([np.isin(row, answer.items).mean() for row, answer in zip(wanted, answers, strict=True)]))


def reference_scores(
    network: PredictionNetwork, feeds: Sequence[Feed], inputs_of: Callable[[Feed], tuple[Any, ...]]
) -> np.ndarray:
    """Scores ``(rows, K)`` of the network itself in torch, from the inputs that stand in the place of each feed."""
    scores = []
    with torch.inference_mode():
        for feed in feeds:
            scores.append(network(*inputs_of(feed)).numpy())
    return np.concatenate(scores)


def check_parity(scores: np.ndarray, expected: np.ndarray) -> None:
    """Refuse an exported graph that is not the network's function.

    Raises:
        CompressionError: Scores differ by more than :data:`PARITY`.
    """
    difference = np.nan_to_num(np.abs(scores - expected), nan=np.inf).max()
    if difference > PARITY * max(1.0, float(np.abs(expected).max())):
        raise CompressionError(
            f"the exported graph is not the network: scores differ by {difference:.3g}",
            "This is a fault in Recstill or in the installed onnxruntime; install requirements.lock.",
        )


def top_overlap(scores: np.ndarray, expected: np.ndarray, best_of: int = 10) -> float:
    """Mean share of the best outcomes that two matrices of scores ``(rows, K)`` have in common.

    Of one outcome, a yes or no: the share of rows with the same one of the two.

    Args:
        scores: Of a variant.
        expected: Of the network.
        best_of: How many are the best.

    Raises:
        CompressionError: A score is not finite.
    """
    if not np.isfinite(scores).all():
        raise CompressionError(
            "a quantized variant gives scores that are not finite", "Take it out of quantization.variants."
        )
    if scores.shape[1] == 1:
        return float(((scores > 0) == (expected > 0)).mean())
    top = min(best_of, scores.shape[1])
    best, wanted = (np.argpartition(-each, top - 1, axis=1)[:, :top] for each in (scores, expected))
    return float((best[:, :, None] == wanted[:, None, :]).any(axis=2).mean())
