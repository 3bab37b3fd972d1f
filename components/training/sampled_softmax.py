"""Cross entropy and divergence over a sample of a catalogue that is too large for the full softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from components.tasks.batch import LEAST, Pairs
from components.training.losses.distributions import observed, relative_entropy
from components.training.losses.teacher_list import is_in

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels

_CHUNK = 2048
# Popularity to this power: between uniform, which never meets a serious rival of the target, and popularity itself.
_POPULARITY_POWER = 0.75


class NegativeSampler:
    """Draws items, with replacement, in proportion to ``(events + 1) ** 0.75`` (Mikolov et al. 2013, section 2.2).

    Args:
        counts: ``(K,)`` training events of each item.
    """

    def __init__(self, counts: np.ndarray) -> None:
        weight = (counts.astype(np.float64) + 1.0) ** _POPULARITY_POWER
        self._cumulative = torch.from_numpy(np.cumsum(weight))
        self.log_probability = torch.from_numpy(np.log(weight / weight.sum())).float()
        """``(K,)`` float32, log of the chance of each item in one draw."""

    def draw(self, count: int) -> torch.Tensor:
        """``(count,)`` int64 items, from torch's generator."""
        places = torch.rand(count, dtype=torch.float64) * self._cumulative[-1]
        return torch.searchsorted(self._cumulative, places, right=True).clamp_(max=len(self._cumulative) - 1)


def sampled_softmax(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    log_probability: torch.Tensor,
    *,
    left_out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross entropy with the partition sum estimated from S shared negatives.

    A negative that was drawn with probability Q counts ``1 / (S * Q)`` times, that is, ``log(S * Q)`` is taken from
    its logit (the logQ correction: Bengio & Senécal 2008; Yi et al. 2019), and a negative that is the target itself is
    left out. The estimate of the sum over all others is then unbiased, and the loss tends to the full cross entropy.

    Args:
        hidden: ``(N, dim)``.
        weight: ``(K, dim)``, the head.
        targets: ``(N,)`` int64.
        negatives: ``(S,)`` int64, drawn with replacement.
        log_probability: ``(S,)``, log of the chance of each negative in one draw.
        left_out: ``(N, L)`` int64, outcomes that do not exist to a point, see :func:`outcomes_of_rows`.

    Returns:
        ``(N,)``.
    """
    gone = targets.unsqueeze(1) if left_out is None else torch.cat([targets.unsqueeze(1), left_out], dim=1)
    rivals = F.embedding(negatives, weight)
    correction = log_probability + float(np.log(len(negatives)))

    def losses(hidden: torch.Tensor, aims: torch.Tensor, gone: torch.Tensor) -> torch.Tensor:
        aimed = (hidden * aims).sum(1, keepdim=True)
        logits = F.linear(hidden, rivals) - correction
        logits = logits.masked_fill(_are_in(negatives, gone), -torch.inf)
        return torch.logsumexp(torch.cat([aimed, logits], dim=1), dim=1) - aimed.squeeze(1)

    parts = zip(hidden.split(_CHUNK), F.embedding(targets, weight).split(_CHUNK), gone.split(_CHUNK), strict=True)
    # Computed once more for the gradient: (N, S) logits are not kept.
    return torch.cat([checkpoint(losses, *part, use_reentrant=False) for part in parts])


def observed_sampled_softmax(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    targets: torch.Tensor,
    negatives: torch.Tensor,
    log_probability: torch.Tensor,
    *,
    left_out: Pairs | None = None,
) -> torch.Tensor:
    """Sum over the points of :func:`sampled_softmax`; where several outcomes were observed at a point, of their mean.

    Args:
        hidden, weight, negatives, log_probability: See :func:`sampled_softmax`.
        targets: ``(N,)`` or ``(N, M)`` int64, see :class:`components.tasks.batch.Batch`.
        left_out: See there.

    Returns:
        A scalar.
    """
    gone = outcomes_of_rows(left_out, len(targets))
    if targets.ndim == 1:
        return sampled_softmax(hidden, weight, targets, negatives, log_probability, left_out=gone).sum()
    ids, shares = observed(targets, weight.dtype)
    row, place = torch.nonzero(shares, as_tuple=True)
    gone = None if gone is None else gone[row]
    values = sampled_softmax(hidden[row], weight, ids[row, place], negatives, log_probability, left_out=gone)
    return (values * shares[row, place]).sum()


def sampled_divergence(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    labels: SoftLabels,
    negatives: torch.Tensor,
    log_probability: torch.Tensor,
    *,
    temperature: float = 1.0,
    left_out: Pairs | None = None,
) -> torch.Tensor:
    """Divergence from cached labels with the mass outside them estimated from S shared negatives.

    The outcomes that are stored are scored exactly. All others together are estimated from the negatives that are not
    stored, each counting ``1 / (S * Q)`` times (see :func:`sampled_softmax`). That estimate is the student's tail,
    and with the stored outcomes its partition sum; it is unbiased, and the loss tends to
    :func:`~components.training.losses.distributions.divergence`.

    Args:
        hidden: ``(N, dim)``.
        weight: ``(K, dim)``, the head.
        labels: k outcomes and a tail, or a sample, at this temperature.
        negatives: ``(S,)`` int64, drawn with replacement.
        log_probability: ``(S,)``, log of the chance of each negative in one draw.
        temperature: Divides the logits.
        left_out: Rows and outcomes that the teacher gives no chance, see :attr:`components.tasks.batch.Batch.known`.

    Returns:
        ``(N,)``, without the factor ``temperature**2``.
    """
    assert labels.ids is not None
    gone = outcomes_of_rows(left_out, len(hidden))
    rivals = F.embedding(negatives, weight)
    correction = log_probability + float(np.log(len(negatives)))

    def losses(
        hidden: torch.Tensor,
        ids: torch.Tensor,
        known: torch.Tensor,
        tail: torch.Tensor | None,
        gone: torch.Tensor | None,
    ) -> torch.Tensor:
        listed = torch.einsum("nd,nkd->nk", hidden, F.embedding(ids, weight)) / temperature
        logits = F.linear(hidden, rivals) / temperature - correction
        passed_over = ids
        if gone is not None:
            listed = listed.masked_fill(is_in(ids, gone), LEAST / temperature)
            passed_over = torch.cat([ids, gone], dim=1)
        logits = logits.masked_fill(_are_in(negatives, passed_over), -torch.inf)
        # Nothing of the rest was met: a mass too small to count, and no gradient of a sum over nothing.
        logits = torch.cat([logits, logits.new_full((len(ids), 1), LEAST)], dim=1)
        outside = torch.logsumexp(logits, dim=1)
        total = torch.logaddexp(torch.logsumexp(listed, dim=1), outside)
        value = relative_entropy(known, listed - total.unsqueeze(1)).sum(1)
        return value if tail is None else value + relative_entropy(tail, outside - total)

    rows = range(0, len(hidden), _CHUNK)
    parts = [slice(start, start + _CHUNK) for start in rows]
    known = labels.log_probs.to(weight.dtype)
    tails = [None if labels.tail is None else labels.tail[part].to(weight.dtype) for part in parts]
    values = [
        checkpoint(
            losses,
            hidden[part],
            labels.ids[part],
            known[part],
            tail,
            None if gone is None else gone[part],
            use_reentrant=False,
        )
        for part, tail in zip(parts, tails, strict=True)
    ]
    return torch.cat(values) if values else hidden.sum(1)


def outcomes_of_rows(pairs: Pairs | None, rows: int) -> torch.Tensor | None:
    """The outcomes of each row side by side.

    Args:
        pairs: See :data:`components.tasks.batch.Pairs`.
        rows: N; some may have no outcome.

    Returns:
        ``(N, L)`` int64, -1 behind those of a row; None of None.
    """
    if pairs is None:
        return None
    row, outcome = pairs
    size = torch.bincount(row, minlength=rows)
    place = torch.arange(len(row), device=row.device) - (size.cumsum(0) - size)[row]
    found = row.new_full((rows, int(size.max()) if len(row) else 1), -1)
    found[row, place] = outcome
    return found


def _are_in(negatives: torch.Tensor, among: torch.Tensor) -> torch.Tensor:
    """Which of the negatives ``(S,)`` are among each row's ``(N, b)`` outcomes, ``(N, S)`` bool."""
    # One outcome a row needs no search.
    return among == negatives if among.shape[1] == 1 else is_in(negatives.expand(len(among), -1), among)
