"""A teacher's temperature, fitted on the validation events before its labels are cached.

A network that was trained long enough is surer of itself than it is right; an average of several is less sure. One
number T, by which all logits are divided, mends most of it and changes no ranking: Guo et al., "On Calibration of
Modern Neural Networks", ICML 2017, section 4.2 (temperature scaling) and section 2 (expected calibration error). Of one
outcome, a yes or no, a second number is added to the logit (section 4.2 there, after Platt 1999): what comes of things
changes with time, and the validation events are later than those that the teacher has learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit

from components.data.dataset import Split
from components.errors import DataError, TrainingError
from components.networks.contract import PredictionNetwork
from components.tasks.batch import LEAST, EvaluationBatch, Pairs, pairs_of

_SMALLEST, _LARGEST = 0.05, 20.0
# More events than these tell T no better than a thousandth, and would make the fit as long as the labelling.
_MOST_EVENTS = 20_000
_BATCH = 256
_LOGITS_AT_ONCE = 1 << 22
# T is part of the cache's id: machines that round differently must come to the same one.
_DECIMALS = 3
_BINS = 15


class CalibrationTask(Protocol):
    """What the fit needs of a task."""

    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The held-out events of a split."""


class Calibration(NamedTuple):
    """What was fitted, and what it did on the events that it was fitted on.

    Attributes:
        temperature: T, by which logits are divided, to three decimals.
        shift: What is added to the logit of a yes then, to three decimals; 0 where there are several outcomes.
        events: Validation events that it was fitted on.
        nll_before: Mean negative log-likelihood of the held-out outcomes over all that labels are over, in nats.
        nll_after: The same at T.
        ece_before: Expected calibration error of the first outcome, over 15 bins.
        ece_after: The same at T.
    """

    temperature: float
    shift: float
    events: int
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float

    def figures(self) -> dict[str, float]:
        """As they stand in ``metrics/soft_labels.json``."""
        found = {name: value for name, value in self._asdict().items() if name != "shift" or value}
        return {f"calibration_{name}": round(value, 6) for name, value in found.items()}


UNCHANGED = Calibration(1.0, 0.0, 0, 0.0, 0.0, 0.0, 0.0)
"""Of a teacher that is left as it is."""


def calibrated(teacher: PredictionNetwork, task: CalibrationTask) -> Calibration:
    """Fit a teacher's temperature by the likelihood of the validation events; the test events are never looked at.

    Args:
        teacher: Gives logits ``(N, K)``; on the CPU.
        task: Gives the validation events.

    Raises:
        DataError: There is no validation event.
        TrainingError: The teacher gives logits that are not finite.
    """
    threads = torch.get_num_threads()
    # As everywhere where labels are made: sums that are split among threads round differently.
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            return _fitted(teacher.eval(), *_events(teacher.eval(), task))
    finally:
        torch.set_num_threads(threads)


def expected_calibration_error(confidence: torch.Tensor, correct: torch.Tensor, bins: int = _BINS) -> float:
    """``sum over bins of share of the events * |how often they are right - how sure they are|``, bins of equal width.

    Args:
        confidence: ``(N,)`` probabilities of the outcomes that were predicted.
        correct: ``(N,)`` bool, whether those are the observed ones.
        bins: How many.
    """
    if len(confidence) == 0:
        return 0.0
    place = (confidence.double() * bins).ceil().long().sub(1).clamp(0, bins - 1)
    sure = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence.double())
    right = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, correct.double())
    return float((right - sure).abs().sum() / len(confidence))


def _fitted(
    teacher: PredictionNetwork, hidden: torch.Tensor, targets: torch.Tensor, known: Pairs | None
) -> Calibration:
    rows = max(1, _LOGITS_AT_ONCE // teacher.outcomes)

    def measured(temperature: float, shift: float = 0.0) -> tuple[float, float]:
        """Negative log-likelihood and calibration error."""
        total, sure, right = 0.0, [], []
        for start in range(0, len(targets), rows):
            place = slice(start, start + rows)
            logits, aims = teacher.score(hidden[place]).float() / temperature, targets[place]
            if known is not None:
                # As in the labels, which are what the temperature is for.
                logits[pairs_of(known, place)] = LEAST
            if teacher.outcomes == 1:
                logits = F.pad(logits + shift, (1, 0))  # The logit of no is 0.
            log_probs = torch.log_softmax(logits, dim=1)
            total -= float(log_probs.gather(1, aims.unsqueeze(1)).double().sum())
            best, places = log_probs.max(dim=1)
            sure.append(best.exp())
            right.append(places == aims)
        return total / len(targets), expected_calibration_error(torch.cat(sure), torch.cat(right))

    nll_before, ece_before = measured(1.0)
    if not np.isfinite(nll_before):
        raise TrainingError("the teacher's logits are not finite (NaN or infinity)", "Train the teacher again.")
    if teacher.outcomes == 1:
        return _fitted_to_yes_or_no(teacher.score(hidden).float()[:, 0], targets, measured)
    # Over log T, in which the likelihood has one peak and 1 / T and T are as far from 1.
    found = minimize_scalar(
        lambda log_t: measured(float(np.exp(log_t)))[0],
        bounds=(np.log(_SMALLEST), np.log(_LARGEST)),
        method="bounded",
        options={"xatol": 1e-4},
    )
    temperature = round(float(np.exp(found.x)), _DECIMALS)
    nll_after, ece_after = measured(temperature)
    if nll_after > nll_before:
        temperature, nll_after, ece_after = 1.0, nll_before, ece_before
    return Calibration(temperature, 0.0, len(targets), nll_before, nll_after, ece_before, ece_after)


def _fitted_to_yes_or_no(
    logits: torch.Tensor, targets: torch.Tensor, measured: Callable[[float, float], tuple[float, float]]
) -> Calibration:
    z, y = logits.double().numpy(), targets.numpy()

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log-likelihood of ``a z + b``, and its gradient."""
        slope, shift = parameters
        moved = slope * z + shift
        error = expit(moved) - y
        value = float(np.mean(np.logaddexp(0, moved) - y * moved))
        return value, np.array([np.mean(error * z), np.mean(error)])

    bounds = [(1 / _LARGEST, 1 / _SMALLEST), (-_LARGEST, _LARGEST)]
    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=bounds)
    temperature, shift = round(float(1 / found.x[0]), _DECIMALS), round(float(found.x[1]), _DECIMALS)
    (nll_before, ece_before), (nll_after, ece_after) = measured(1.0, 0.0), measured(temperature, shift)
    if nll_after > nll_before:
        temperature, shift, nll_after, ece_after = 1.0, 0.0, nll_before, ece_before
    return Calibration(temperature, shift, len(targets), nll_before, nll_after, ece_before, ece_after)


def _events(teacher: PredictionNetwork, task: CalibrationTask) -> tuple[torch.Tensor, torch.Tensor, Pairs | None]:
    """Hidden states ``(V, dim)``, targets ``(V,)``, and which outcomes of which events labels leave out.

    Of very many events some, drawn at random; none whose own outcome is left out, of which no label says anything.
    """
    count = sum(len(batch.targets) for batch in task.evaluation_batches("validation", _BATCH))
    wanted = torch.zeros(count, dtype=torch.bool)
    wanted[torch.from_numpy(np.random.default_rng(0).permutation(count)[:_MOST_EVENTS])] = True
    hidden, targets, known, first, taken = [], [], [], 0, 0
    for batch in task.evaluation_batches("validation", _BATCH):
        chosen = wanted[first : first + len(batch.targets)]
        first += len(batch.targets)
        if batch.known is not None:
            row, outcome = batch.known
            chosen = chosen.index_fill(0, row[outcome == batch.targets[row]], value=False)
            mine = chosen[row]
            known.append((chosen.cumsum(0)[row[mine]] - 1 + taken, outcome[mine]))
        taken += int(chosen.sum())
        hidden.append(teacher.encode(*batch.inputs)[chosen])
        targets.append(batch.targets[chosen])
    if taken == 0:
        raise DataError(
            "there is no validation event to calibrate the teacher on",
            "Raise prepare.validation_share, or set `soft_labels.calibrate` to false.",
        )
    left_out = (torch.cat([row for row, _ in known]), torch.cat([outcome for _, outcome in known])) if known else None
    return torch.cat(hidden), torch.cat(targets), left_out
