"""The form of a network for a large catalogue: an encoder in ONNX, and an index in which its vector finds the items."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx

from components.compression.encoder import split_at_head
from components.compression.item_index import INDEX_KEY, Bits, ItemIndex, Kind, exact_search
from components.compression.quantization import quantized
from components.compression.running import outputs_of
from components.errors import CompressionError
from components.settings.quantization import GraphForm, QuantizationSettings, SearchSettings
from components.soft_labels.progress import RowProgress
from components.tasks.answering import Retrieving
from components.tasks.batch import Feed
from components.tasks.building import answering_of
from components.tasks.contract import Task

_FORM: GraphForm = "int8_table8"
_BATCH_SIZE = 16
_INTERVAL = 1.96  # Standard errors to each side, of a 95 % interval.


@dataclass(frozen=True)
class Searched:
    """A network as two files.

    Attributes:
        encoder: Its metadata name the index.
        index: The effort that reaches the recall is set.
        bits: Of a value in it.
        recall: Share of the items of an answer that the index found.
        histories: Validation histories on which that was measured.
    """

    encoder: onnx.ModelProto
    index: ItemIndex
    bits: Bits
    recall: float
    histories: int


class _Asked(NamedTuple):
    """A validation history as a request, and the items that its answer leaves out."""

    feed: Feed
    seen: np.ndarray


def searched(
    model: onnx.ModelProto, settings: QuantizationSettings, calibration: Sequence[Feed], task: Task
) -> Searched:
    """Split an exported network, quantize its encoder, and index its items.

    Args:
        model: From :func:`export_onnx`; it stays as it is.
        settings: Of encoder and index.
        calibration: Feeds of training points.
        task: Whose validation histories the recall is measured on.

    Raises:
        CompressionError: The task does not answer with items, the scores are no inner products, or the index does not
            reach the recall.
        SettingsError: The library faiss is not installed.
    """
    if not issubclass(answering_of(task.name), Retrieving):
        raise CompressionError(
            f"the task {task.name!r} does not answer with the best of a catalogue: there is nothing to search for",
            "Take int8_index out of quantization.variants.",
        )
    encoder, vectors = split_at_head(model)
    encoder = quantized(encoder, _FORM, settings, calibration)
    asked = list(_asked(task, settings.search.histories))
    queries = outputs_of(encoder, [one.feed for one in asked])
    seen = [one.seen for one in asked]
    best = exact_answers(vectors, queries, seen, task.best_of)
    kind, search = kind_of(settings.search, len(vectors)), settings.search
    bits: Bits = 16 if search.bits == "by_recall" else search.bits
    if search.bits == "by_recall":
        least = search.recall if kind == "exact" else (1 + search.recall) / 2
        bits = 8 if recall_of(ItemIndex.built(vectors, "exact"), queries, seen, best) >= least else 16
    with RowProgress(len(vectors), "indexing", show=kind == "hnsw") as progress:
        index = ItemIndex.built(vectors, kind, bits, progress.advance)
    recall = _set_effort(index, queries, seen, best, search.recall)
    digest = hashlib.sha256(index.content()).hexdigest()
    onnx.helper.set_model_props(encoder, {INDEX_KEY: digest})
    return Searched(encoder, index, bits, recall, len(asked))


def kind_of(settings: SearchSettings, items: int) -> Kind:
    """The kind of index that a catalogue gets."""
    if settings.index == "by_size":
        if items <= settings.exact_up_to:
            return "exact"
        return "ivf" if items <= settings.ivf_up_to else "hnsw"
    return settings.index


def recall_of(index: ItemIndex, queries: np.ndarray, seen: Sequence[np.ndarray], best: Sequence[np.ndarray]) -> float:
    """Mean share of the best items that an index finds as it is asked when it serves, see :func:`_shares_found`."""
    return float(_shares_found(index, queries, seen, best).mean())


def _shares_found(
    index: ItemIndex, queries: np.ndarray, seen: Sequence[np.ndarray], best: Sequence[np.ndarray]
) -> np.ndarray:
    """``(B,)``, the share of the best items of each query that an index finds.

    Args:
        index: With its effort.
        queries: ``(B, dim)`` float32.
        seen: ``(B,)``, items that the answer to each leaves out: so many more are searched for.
        best: ``(B,)``, the items of the exact answer to each.
    """
    shares = []
    wanted = [len(one) + len(known) for one, known in zip(best, seen, strict=True)]
    for found, known, items in zip(index.search(queries, wanted), seen, best, strict=True):
        answer = found.items[~np.isin(found.items, known)][: len(items)]
        # Who has seen everything is answered nothing, rightly.
        shares.append(np.isin(items, answer).mean() if len(items) else 1.0)
    return np.array(shares)


def exact_answers(
    vectors: np.ndarray, queries: np.ndarray, seen: Sequence[np.ndarray], best_of: int
) -> list[np.ndarray]:
    """The best items of each query by the full vectors ``(K, dim)``, without those that are seen."""
    most = min(best_of + max(map(len, seen)), len(vectors))
    rows = exact_search(vectors, queries, most)
    return [row[~np.isin(row, known)][:best_of] for row, known in zip(rows, seen, strict=True)]


def _set_effort(
    index: ItemIndex, queries: np.ndarray, seen: Sequence[np.ndarray], best: Sequence[np.ndarray], target: float
) -> float:
    """Set the least effort that reaches a recall, and give the recall.

    An effort that is chosen on some histories for just reaching it may miss it on others: what it finds has to reach
    it at the lower end of a 95 % interval. Where no effort does, the least one counts that reaches it and of which the
    greatest is no more than that margin ahead.

    Raises:
        CompressionError: None does.
    """
    found: list[tuple[int, float]] = []
    for effort in index.efforts:
        index.set_effort(effort)
        shares = _shares_found(index, queries, seen, best)
        recall, margin = float(shares.mean()), _INTERVAL * float(shares.std()) / math.sqrt(len(shares))
        if recall - margin >= target:
            return recall
        found.append((effort, recall))
    if recall >= target:
        effort, enough = next(one for one in found if one[1] >= max(target, recall - margin))
        index.set_effort(effort)
        return enough
    looked = f" with effort {index.effort}, the greatest" if index.kind != "exact" else ""
    raise CompressionError(
        f"the index ({index.kind}, {index.items:,} items) finds {recall:.4f} of the {len(best[0])} best items{looked}, "
        f"on {len(queries)} validation histories; quantization.search.recall asks for {target}",
        "Lower quantization.search.recall, take another quantization.search.index, or take int8_index out of "
        "quantization.variants.",
    )


def _asked(task: Task, count: int) -> Iterator[_Asked]:
    """Validation points spread over all, each without padding."""
    batches = math.ceil(task.held_out("validation") / _BATCH_SIZE)
    stride = max(1, batches // math.ceil(count / _BATCH_SIZE))
    given = 0
    for number, batch in enumerate(task.evaluation_batches("validation", _BATCH_SIZE)):
        if number % stride:
            continue
        row, item = (np.zeros(0, np.int64),) * 2 if batch.seen is None else (part.numpy() for part in batch.seen)
        for place, feed in enumerate(batch.requests()):
            if given == count:
                return
            given += 1
            yield _Asked(feed, np.unique(item[row == place]))
