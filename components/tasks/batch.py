"""What every task hands to a network: inputs that lead to logits at N prediction points over K outcomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels

LEAST = -1e4
"""Logit of an outcome that is not asked for: no chance in a softmax, and still a number."""

ITEM_SETS = "item_sets"
"""Key of :attr:`components.tasks.contract.Task.sizes` of a task whose inputs are the items of users."""

ITEM_FEATURES = "item_features"
"""Key of the same of a task whose items have features: a :class:`components.data.item_features.ItemFeatures`."""

Pairs = tuple[torch.Tensor, torch.Tensor]
"""Rows of a batch, ascending, and an outcome to each."""

Feed = dict[str, np.ndarray]
"""Inputs of a served ONNX graph by name; the first axis of each is the batch."""


def pairs_of(pairs: Pairs, rows: slice) -> Pairs:
    """Those of some rows, which are counted from the first of these rows on."""
    row, outcome = pairs
    first, stop = torch.searchsorted(row, row.new_tensor([rows.start, rows.stop])).tolist()
    return row[first:stop] - rows.start, outcome[first:stop]


class Batch(NamedTuple):
    """One step's prediction points.

    Attributes:
        inputs: What the network's ``encode`` takes, in order; the first dimension may be padded samples, since
            ``encode`` returns hidden states of the valid prediction points only, ``(N, dim)``.
        targets: ``(N,)`` int64, the outcome that was observed at each point; 0 or 1 where there is one outcome.
            ``(N, M)`` where several were observed at once, which share the point equally; -1 stands for none.
        points: ``(N,)`` int64, the stable ids of the points in the prepared data set.
        step_points: Points of the whole step over all devices, which a mean divides by; N on one device.
        labels: The teacher's distribution at each point, N rows at temperature 1, when it has been looked up already.
        left_out: Two int64 tensors of the same size, row (ascending) and outcome, that a network is shown and not
            asked for: it gives them no chance when it is judged by what was observed. None: all are asked for.
        known: The same of all that was observed at a point, shown or asked for: the teacher has seen it when it made
            its labels, and gives it no chance; nor does the student when it is judged by them.
        whole: Inputs that hold all that was observed at each point, as the teacher has seen it: the student reads them
            when it is judged by labels. None: ``inputs``.
    """

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor
    points: torch.Tensor
    step_points: int
    labels: SoftLabels | None = None
    left_out: Pairs | None = None
    known: Pairs | None = None
    whole: tuple[torch.Tensor, ...] | None = None


class EvaluationBatch(NamedTuple):
    """B held-out points, each to be predicted from what a request would hold.

    Attributes:
        inputs: What the network's ``encode`` takes; it leads to ``(B, dim)``.
        feed: The same for a served ONNX graph.
        targets: ``(B,)`` int64, what was observed.
        users: ``(B,)`` int64, what is drawn together in a bootstrap: the user, or the point itself.
        seen: Two int64 tensors of the same size, row in the batch and outcome, that count as known to the user: of a
            history all of it, not only the part that the network sees. None where there is no such thing.
        known: The same of what a teacher would give no chance in a label made from these inputs, see
            :attr:`Batch.known`. None where its labels are over all outcomes.
        padded: Inputs of ``feed`` that are padded along their second axis; ``feed["length"]`` ``(B,)`` says how much
            of each row counts.
    """

    inputs: tuple[torch.Tensor, ...]
    feed: Feed
    targets: torch.Tensor
    users: torch.Tensor
    seen: tuple[torch.Tensor, torch.Tensor] | None = None
    padded: tuple[str, ...] = ()
    known: Pairs | None = None

    def requests(self) -> Iterator[Feed]:
        """Each row as a feed of its own, without padding, as it is served."""
        for row in range(len(self.targets)):
            single = {name: values[row : row + 1] for name, values in self.feed.items()}
            for name in self.padded:
                single[name] = single[name][:, : int(single["length"][0])]
            yield single


Scorer = Callable[[EvaluationBatch], torch.Tensor]
"""From a batch to scores ``(B, K)``, whatever computes them."""
