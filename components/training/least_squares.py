"""Alternating least squares for a matrix factorization: each half step has a closed form.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008, with regularization that
grows with the weight of a row's pairs (Rendle, Krichene, Zhang and Koren, RecSys 2022, equation 7). What is minimized
over users' rows x and items' rows v, with a the weight of a pair that was not observed and N the number of rows on the
other side, is

    sum over observed pairs of (1 - x.v)^2 + a * sum over all pairs of (x.v)^2
      + regularization * (sum_u (n_u + a N) |x_u|^2 + sum_i (n_i + a N) |v_i|^2)

The library ``implicit`` (0.7.3) has one regularization for all rows; the few lines below have what the papers found
to matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import sparse

from components.errors import SettingsError, TrainingError
from components.networks.contract import PredictionNetwork
from components.networks.matrix_factorization import MatrixFactorization
from components.settings.least_squares import LeastSquaresSettings
from components.tasks.batch import LEAST
from components.tasks.contract import Task
from components.training.callbacks import Epoch

if TYPE_CHECKING:
    from components.training.fitting import FitResult

_BATCH = 256
_CELLS = 1 << 23  # Numbers of the largest array that a half step makes.
_STEEPEST = 200.0
# Small rows make the first half steps linear: power iteration, which finds the large directions first.
_BEGIN = 0.3


def fit_least_squares(
    network: PredictionNetwork,
    task: Task,
    settings: LeastSquaresSettings,
    *,
    name: str = "network",
    threads: int = 1,
    tell: Callable[[str], None] = print,
) -> FitResult:
    """Train a matrix factorization in place; it ends with the rows of its best sweep, in evaluation mode.

    The logits' scale, which changes no ranking, is the one under which the validation points are likeliest, items that
    the user has taken left out: a teacher's labels are then as sure as they should be.

    Args:
        network: A ``matrix_factorization``, whose items' rows are where it begins.
        task: A task over the items of users.
        settings: Weights and sweeps.
        name: Of the network, in messages and in the curve.
        threads: Processor threads.
        tell: Is told a line a sweep.

    Raises:
        SettingsError: It is another network.
        TrainingError: There is nothing to learn from or to validate on, or a row is not finite.
    """
    from components.training.fitting import FitResult

    if not isinstance(network, MatrixFactorization):
        raise SettingsError(
            f"alternating least squares trains a matrix_factorization, not a {network.record()['network']}",
            "Take `kind` out of `teacher.optimization`, or set `teacher.network.kind: matrix_factorization`.",
        )
    taken = interactions(task)
    if not taken.nnz or not task.held_out("validation"):
        raise TrainingError("there is nothing to learn from, or nothing to validate on", "Bring more data.")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            curve, best = _sweeps(network.eval(), task, taken, settings, lambda line: tell(f"{name}: {line}"))
            network.load_state_dict(best)
            network.scale.copy_(torch.tensor([_likeliest_scale(network, task)]).log())
    finally:
        torch.set_num_threads(before)
    return FitResult(name, tuple(curve), max(row.validation for row in curve))


def interactions(task: Task) -> sparse.csr_array:
    """Which items each point's user has taken, ``(P, K)``, from the inputs ``items`` and ``length``."""
    rows, columns = [], []
    for batch in task.scoring_batches(0, task.points, _BATCH):
        items, length = (tensor.numpy() for tensor in batch.inputs)
        row, place = np.nonzero(np.arange(items.shape[1]) < length[:, None])
        rows.append(batch.points.numpy()[row])
        columns.append(items[row, place])
    pairs = np.concatenate(rows), np.concatenate(columns)
    return sparse.csr_array((np.ones(len(pairs[0]), np.float32), pairs), shape=(task.points, task.outcomes))


def half_step(taken: sparse.csr_array, others: torch.Tensor, unobserved: float, regularization: float) -> torch.Tensor:
    """The rows of one side that minimize the loss when those of the other side stand.

    Args:
        taken: ``(R, C)``, 1 where a pair was observed.
        others: ``(C, dim)``, the rows of the other side.
        unobserved: Weight of a pair that was not observed.
        regularization: Of a row, for each unit of weight.

    Returns:
        ``(R, dim)``.
    """
    count, dim = np.diff(taken.indptr), others.shape[1]
    gram = unobserved * others.T @ others
    ridge = regularization * (torch.from_numpy(count).to(others.dtype) + unobserved * len(others))
    found = torch.zeros(len(count), dim, dtype=others.dtype)
    # Of like length together, so that little is padded; a row without any pair stays zero.
    for rows in _of_like_length(count, dim):
        places = np.arange(count[rows].max())
        there = places < count[rows][:, None]
        items = taken.indices[np.where(there, taken.indptr[rows][:, None] + places, 0)]
        known = others[torch.from_numpy(items.astype(np.int64))] * torch.from_numpy(there).to(others.dtype)[..., None]
        system = gram + known.transpose(1, 2) @ known
        system.diagonal(dim1=1, dim2=2).add_(ridge[rows][:, None])
        solved = torch.cholesky_solve(known.sum(1)[..., None], torch.linalg.cholesky(system))
        found[torch.from_numpy(rows)] = solved[..., 0]
    return found


def _sweeps(
    network: MatrixFactorization,
    task: Task,
    taken: sparse.csr_array,
    settings: LeastSquaresSettings,
    tell: Callable[[str], None],
) -> tuple[list[Epoch], dict[str, torch.Tensor]]:
    weights = settings.unobserved, settings.regularization
    of_items, table = taken.T.tocsr(), network.item.weight.detach() * _BEGIN
    curve: list[Epoch] = []
    best: dict[str, torch.Tensor] = {}
    since = 0
    for sweep in range(1, settings.max_epochs + 1):
        users = half_step(taken, table, *weights)
        table = half_step(of_items, users, *weights)
        if not torch.isfinite(table).all():
            raise TrainingError(
                f"rows of items are not finite after sweep {sweep}", "Raise teacher.optimization.regularization."
            )
        network.take(table, *weights)
        metric = task.validation_metric()
        for batch in task.evaluation_batches("validation", _BATCH):
            metric.update(network(*batch.inputs), batch)
        curve.append(Epoch(sweep, _loss(taken, users, table, *weights), float(metric.compute())))
        tell(f"sweep {sweep} of {settings.max_epochs}  validation {task.primary.title} {curve[-1].validation:.4f}")
        since += 1
        if curve[-1].validation > max((row.validation for row in curve[:-1]), default=-1.0):
            best, since = {key: tensor.clone() for key, tensor in network.state_dict().items()}, 0
        if since >= settings.patience:
            break
    return curve, best


def _loss(
    taken: sparse.csr_array, users: torch.Tensor, table: torch.Tensor, unobserved: float, regularization: float
) -> float:
    """What is minimized, see the head of this module, for each user."""
    row = torch.from_numpy(np.repeat(np.arange(taken.shape[0]), np.diff(taken.indptr)))
    scores = torch.cat(
        [
            (users[part] * table[other]).sum(1)
            for part, other in zip(
                row.split(1 << 16), torch.from_numpy(taken.indices).long().split(1 << 16), strict=True
            )
        ]
    )
    total = (1 - scores).square().sum() + unobserved * ((users.T @ users) * (table.T @ table)).sum()
    for rows, counts in ((users, np.diff(taken.indptr)), (table, np.bincount(taken.indices, minlength=len(table)))):
        other = len(table) if rows is users else len(users)
        weight = torch.from_numpy(counts).to(rows.dtype) + unobserved * other
        total = total + regularization * (weight * rows.square().sum(1)).sum()
    return float(total) / len(users)


def _likeliest_scale(network: MatrixFactorization, task: Task) -> float:
    """The factor on ``x . v`` under which the held-out items of the validation points are likeliest."""
    coarse = np.geomspace(1.0, _STEEPEST, 12)
    best = int(np.argmin(_surprise(network, task, coarse)))
    fine = np.geomspace(coarse[max(0, best - 1)], coarse[min(best + 1, len(coarse) - 1)], 9)
    return float(fine[np.argmin(_surprise(network, task, fine))])


def _surprise(network: MatrixFactorization, task: Task, scales: np.ndarray) -> np.ndarray:
    """Mean negative log-likelihood of the validation points at each scale, items that were taken left out."""
    now, total, points = float(network.scale.exp()), np.zeros(len(scales)), 0
    for batch in task.evaluation_batches("validation", _BATCH):
        logits = network(*batch.inputs) / now
        aimed = logits.gather(1, batch.targets[:, None])
        if batch.seen is not None:
            logits[batch.seen] = LEAST
            logits.scatter_(1, batch.targets[:, None], aimed)
        for place, scale in enumerate(scales.tolist()):
            total[place] += float((torch.logsumexp(scale * logits, dim=1) - scale * aimed[:, 0]).sum())
        points += len(batch.targets)
    return total / points


def _of_like_length(count: np.ndarray, dim: int) -> Iterator[np.ndarray]:
    """Rows with anything in them, short ones first, so many that what they need stays small."""
    order = np.argsort(count, kind="stable")
    order = order[count[order] > 0]
    start = 0
    while start < len(order):
        room = _CELLS // (dim * (dim + int(count[order[start]])))
        stop = start + max(1, room)
        # The last one is the longest: as many as fit with its length.
        stop = start + max(1, min(stop - start, _CELLS // (dim * (dim + int(count[order[min(stop, len(order)) - 1]])))))
        yield order[start:stop]
        start = stop
