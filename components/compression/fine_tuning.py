"""Weights beside a table of few bits, fitted to what the table has become.

Rounded rows err in ways that stay the same for ever: the layers that read them, and those that make the vectors they
are multiplied with, can make up for a part of it. So the table is frozen as it is stored, and all else learns for some
steps to say what the network said before: the Kullback-Leibler divergence of its softmax from that of the rounded one,
on training points. It learns from the network alone, never from what was observed. This is the step that QuIP#
(Tseng et al., ICML 2024) and AQLM (Egiazarian et al., ICML 2024) take beside their codes.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import onnx
import torch
import torch.nn.functional as F

from components.compression.export import export_onnx
from components.compression.graph import array
from components.networks.contract import PredictionNetwork
from components.settings.quantization import FineTuningSettings
from components.soft_labels.progress import RowProgress
from components.tasks.batch import Batch
from components.tasks.contract import Task
from components.training.learning_rate import learning_rate_share

_SCORES_A_STEP = 2**22  # Of the points of a step so many are drawn that their scores take 16 MiB.
_FEWEST_POINTS = 16
_WARMUP_SHARE, _FINAL_SHARE = 0.05, 0.02  # Of the steps, and of the learning rate that is left at their end.


class FineTunedGraphs:
    """The graphs of a network fitted to its rounded tables, each made once however many forms have those tables.

    Args:
        network: In evaluation mode.
        model: Its graph.
        task: What it learned.
        settings: How long.
    """

    def __init__(
        self, network: PredictionNetwork, model: onnx.ModelProto, task: Task, settings: FineTuningSettings
    ) -> None:
        self._network, self._graph, self._task, self._settings = network.folded(), model.graph, task, settings
        self._made: dict[str, onnx.ModelProto | None] = {}

    def __call__(self, tables: Mapping[str, np.ndarray]) -> onnx.ModelProto | None:
        """The graph of the network that was fitted to these tables.

        Args:
            tables: ``(rows, width)``, by their name in the graph.

        Returns:
            None where nothing can be fitted: there is no table, one is no weight of the network as it is, scores are no
            softmax, or what came out is not finite.
        """
        names = {self._weight(name): values for name, values in tables.items()}
        if self._task.loss != "softmax" or not tables or None in names or len(names) < len(tables):
            return None
        rounded = {name: values for name, values in names.items() if name is not None}
        content = "".join(hashlib.sha256(each.tobytes()).hexdigest() for each in rounded.values())
        if content not in self._made:
            self._made[content] = self._fitted(rounded)
        return self._made[content]

    def _fitted(self, rounded: Mapping[str, np.ndarray]) -> onnx.ModelProto | None:
        network = fine_tuned(self._network, rounded, self._task, self._settings)
        if not all(bool(weight.isfinite().all()) for weight in network.parameters()):
            return None
        return export_onnx(network)

    def _weight(self, name: str) -> str | None:
        """The parameter that is this table; an exporter gives it a name of its own."""
        table = array(self._graph, name)
        return next(
            (own for own, weight in self._network.named_parameters() if np.array_equal(weight.detach().numpy(), table)),
            None,
        )


def fine_tuned(
    network: PredictionNetwork, rounded: Mapping[str, np.ndarray], task: Task, settings: FineTuningSettings
) -> PredictionNetwork:
    """A copy with these weights, and with all others fitted to what ``network`` says; the same call gives the same.

    Args:
        network: In evaluation mode; it stays as it is. What its features add is in its tables, see
            :meth:`~components.networks.contract.PredictionNetwork.folded`.
        rounded: Values ``(rows, width)`` of the weights that stay so, by name in the state dict.
        task: Whose training points are learned from. Its ``loss`` is ``softmax``.
        settings: How long.
    """
    student = copy.deepcopy(network).eval()
    for name, values in rounded.items():
        weight = student.get_parameter(name)
        weight.data.copy_(torch.from_numpy(np.ascontiguousarray(values)))
        weight.requires_grad_(False)
    weights = [weight for weight in student.parameters() if weight.requires_grad]
    if not weights:
        return student
    optimizer = torch.optim.Adam(weights, lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: learning_rate_share(
            (step + 0.5) / settings.steps, warmup_share=_WARMUP_SHARE, final_share=_FINAL_SHARE
        ),
    )
    generator = torch.Generator().manual_seed(0)
    most = max(_FEWEST_POINTS, _SCORES_A_STEP // network.outcomes)
    with RowProgress(settings.steps, "fine-tuning to the rounded table", unit="steps") as progress:
        for batch in _batches(task, settings):
            inputs = batch.inputs if batch.whole is None else batch.whole
            hidden = student.encode(*inputs)
            drawn = torch.randperm(len(hidden), generator=generator)[:most]
            with torch.no_grad():
                wanted = F.log_softmax(network.score(network.encode(*inputs)[drawn]), dim=1)
            found = F.log_softmax(student.score(hidden[drawn]), dim=1)
            optimizer.zero_grad()
            F.kl_div(found, wanted, log_target=True, reduction="batchmean").backward()
            optimizer.step()
            schedule.step()
            progress.advance(1)
    return student


def _batches(task: Task, settings: FineTuningSettings) -> Iterator[Batch]:
    """As many as there are steps, of as many epochs as that takes."""
    left, epoch = settings.steps, 0
    while left:
        batches = task.training_batches(settings.batch_size, seed=0, epoch=epoch)
        for index in range(min(left, len(batches))):
            yield batches[index]
        left -= min(left, len(batches))
        epoch += 1
