"""Labels as each codec gives them, of a teacher whose whole distribution is known."""

from __future__ import annotations

import torch

from components.soft_labels.codecs.building import codec_of
from components.soft_labels.labels import SoftLabels

K = 37


def log_distribution(points: int, seed: int = 1, outcomes: int = K) -> torch.Tensor:
    """``(points, outcomes)`` float64."""
    return (3 * torch.randn(points, outcomes, generator=torch.Generator().manual_seed(seed)).double()).log_softmax(1)


def dense(points: int, seed: int = 1) -> SoftLabels:
    return SoftLabels(None, log_distribution(points, seed), None, K)


def listed(points: int, k: int = 8, seed: int = 1) -> SoftLabels:
    """The k largest and the tail, in double precision."""
    log_probs = log_distribution(points, seed)
    values, ids = log_probs.topk(k, dim=1)
    tail = torch.logsumexp(log_probs.scatter(1, ids, -torch.inf), dim=1)
    return SoftLabels(ids, values, tail, K)


def completed(labels: SoftLabels) -> torch.Tensor:
    """The whole distribution ``(N, K)`` that a list stands for, its tail spread evenly, outcome by outcome."""
    if labels.ids is None:
        return labels.log_probs.double().exp()
    rows = []
    for ids, log_probs, tail in zip(labels.ids, labels.log_probs, labels.tail, strict=True):
        row = torch.full((labels.outcomes,), float(tail.double().exp()) / max(1, labels.outcomes - len(ids))).double()
        for place, outcome in enumerate(ids.tolist()):
            row[outcome] = float(log_probs[place].double().exp())
        rows.append(row)
    return torch.stack(rows)


def click(points: int, seed: int = 1) -> tuple[torch.Tensor, SoftLabels]:
    """A teacher's logits ``(points,)``, and the labels that codec ``logit`` makes of them."""
    logits = 2 * torch.randn(points, 1, generator=torch.Generator().manual_seed(seed))
    codec = codec_of({"name": "logit"}, 1)
    return logits.half().double().squeeze(1), codec.decode(codec.encode(logits.clone()))


def student(points: int, seed: int = 7, outcomes: int = K) -> torch.Tensor:
    """Logits ``(points, outcomes)`` float64 that want a gradient."""
    logits = 2 * torch.randn(points, outcomes, generator=torch.Generator().manual_seed(seed)).double()
    return logits.requires_grad_()
