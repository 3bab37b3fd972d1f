"""Scores of any contender on batches of held-out points, whatever runs it: torch, or ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from components.evaluation.onnx_session import new_session
from components.evaluation.searching import ItemSearch, item_search_of
from components.networks.contract import PredictionNetwork
from components.tasks.batch import EvaluationBatch, Scorer


def network_scorer(network: PredictionNetwork) -> Scorer:
    """Scores of a torch network, which is put into evaluation mode."""
    network.eval()
    return lambda batch: network(*batch.inputs)


def onnx_scorer(path: Path, best_of: int = 50) -> Scorer:
    """Scores of an ONNX file as it is served.

    Args:
        path: The file; its index lies beside it, where it has one.
        best_of: Items that are then searched for, beyond those that count as known. All others get a score of minus
            infinity, so that measures that look further (the reciprocal rank) are a little low.

    Raises:
        IntegrityError: ONNX Runtime cannot load it, or its index is another one.
        SettingsError: The library faiss is not installed.
    """
    session = new_session(path)
    search = item_search_of(path, session)
    if search is not None:
        return _search_scorer(search, best_of)

    def scores(batch: EvaluationBatch) -> torch.Tensor:
        # One request at a time, as it is served: activations that are quantized on the fly share one scale a batch, so
        # that the scores of one request would depend on the others.
        rows = [session.run(["scores"], request)[0] for request in batch.requests()]
        return torch.from_numpy(np.concatenate(rows))

    return scores


def _search_scorer(search: ItemSearch, best_of: int) -> Scorer:
    def scores(batch: EvaluationBatch) -> torch.Tensor:
        known = torch.zeros(len(batch.targets), dtype=torch.int64)
        if batch.seen is not None:
            known = torch.bincount(batch.seen[0], minlength=len(batch.targets))
        rows = torch.full((len(batch.targets), search.items), -torch.inf)
        for row, request in enumerate(batch.requests()):
            (found,) = search.found(request, [best_of + int(known[row])])
            rows[row, torch.from_numpy(found.items)] = torch.from_numpy(found.scores)
        return rows

    return scores
