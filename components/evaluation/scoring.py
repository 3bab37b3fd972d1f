"""Scores of any contender on batches of held-out points, whatever runs it: torch, or ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from components.evaluation.onnx_session import new_session
from components.networks.contract import PredictionNetwork
from components.tasks.batch import EvaluationBatch, Scorer


def network_scorer(network: PredictionNetwork) -> Scorer:
    """Scores of a torch network, which is put into evaluation mode."""
    network.eval()
    return lambda batch: network(*batch.inputs)


def onnx_scorer(path: Path) -> Scorer:
    """Scores of an ONNX file as it is served.

    Raises:
        IntegrityError: ONNX Runtime cannot load it.
    """
    session = new_session(path)

    def scores(batch: EvaluationBatch) -> torch.Tensor:
        # One request at a time, as it is served: activations that are quantized on the fly share one scale a batch, so
        # that the scores of one request would depend on the others.
        rows = [session.run(["scores"], request)[0] for request in batch.requests()]
        return torch.from_numpy(np.concatenate(rows))

    return scores
