"""Lightning modules: a network, its task and its loss. Distillation is in :mod:`components.training.distilling`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel

from components.errors import TrainingError
from components.networks.contract import PredictionNetwork
from components.settings.training import OptimizationSettings
from components.tasks.batch import Batch
from components.tasks.contract import Task
from components.training.data import ValidationBatch
from components.training.learning_rate import learning_rate_share
from components.training.linear_head import linear_head_loss
from components.training.losses.clicks import binary_cross_entropy
from components.training.objectives import AskedFor, HardObjective, Objective, PlainObjective
from components.training.sampled_softmax import NegativeSampler, observed_sampled_softmax

VALIDATION = "validation"
ExtraLoss = Callable[[PredictionNetwork], torch.Tensor]


class NetworkTraining(pl.LightningModule, ABC):
    """What supervised training and distillation share; a subclass says what the loss is.

    Args:
        network: Trained in place.
        optimization: Optimizer, schedule and clipping.
        seed: Seed of dropout and of every other draw; each epoch starts from (seed, epoch).
        task: Says which loss it is, and what is validated.
        extra_loss: A term of the network's weights that is added to the loss of each step.
    """

    def __init__(
        self,
        network: PredictionNetwork,
        optimization: OptimizationSettings,
        seed: int,
        task: Task,
        extra_loss: ExtraLoss | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.optimization, self.seed, self.extra_loss = optimization, seed, extra_loss
        self.measure, self.is_bernoulli = task.primary, task.loss == "bernoulli"
        self.log_odds_shift = task.log_odds_shift
        self.validation_metric = task.validation_metric()
        self.average: AveragedModel | None = None
        if optimization.average_decay:
            self.average = AveragedModel(network, multi_avg_fn=self._move_average)
            self.average.requires_grad_(False)
            self.average.eval()
        self.done = 1.0
        """Share of the training that lies behind, from 0 to 1; 1 outside of a training."""
        self._loss_sum: torch.Tensor | float = 0.0
        self._point_sum = 0

    @property
    def kept_network(self) -> PredictionNetwork:
        """What is validated and kept: the average of the weights over the steps, if there is one."""
        kept = self.network if self.average is None else self.average.module
        assert isinstance(kept, PredictionNetwork)
        return kept

    @abstractmethod
    def loss_sum(self, batch: Batch) -> torch.Tensor:
        """The summed loss of a batch's points, a scalar."""

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """The mean loss over the points of the step, on all devices."""
        # Lightning averages the gradients of the devices: a device's sum counts as many times as there are devices.
        loss = self.loss_sum(batch) * (self.trainer.world_size / max(1, batch.step_points))
        self._loss_sum = self._loss_sum + loss.detach() * batch.step_points
        self._point_sum += batch.step_points
        return loss if self.extra_loss is None else loss + self.extra_loss(self.network)

    def on_train_epoch_start(self) -> None:
        """The state of the random generators depends on seed and epoch alone, so that a run can be resumed."""
        entropy = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank])
        torch.manual_seed(int(entropy.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        self._loss_sum, self._point_sum = 0.0, 0

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of the step, and how far the training is."""
        self.done = (self.current_epoch + batch_idx / self.trainer.num_training_batches) / self.optimization.max_epochs
        warmup, last = self.optimization.warmup_share, self.optimization.final_learning_rate_share
        rate = self.optimization.learning_rate * learning_rate_share(self.done, warmup_share=warmup, final_share=last)
        for optimizer in self.trainer.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Take the new weights into their average."""
        if self.average is not None:
            self.average.update_parameters(self.network)

    def train_loss(self) -> float:
        """Mean loss over the points of the epoch so far, over all devices, without the extra term."""
        mean = torch.as_tensor(self._loss_sum / max(1, self._point_sum), device=self.device)
        return float(self.trainer.strategy.reduce(mean, reduce_op="mean"))

    def validation_step(self, batch: ValidationBatch, batch_idx: int) -> None:
        """Take in the scores of some held-out points."""
        points, counted = batch
        scores = self.kept_network(*points.inputs).float()
        if counted:
            self.validation_metric.update(scores, points)

    def on_validation_epoch_end(self) -> None:
        """Hand the figure to early stopping and to the progress bar."""
        self.log(VALIDATION, self.validation_metric.compute().float(), prog_bar=True)
        self.validation_metric.reset()

    def trained_parameters(self) -> list[torch.nn.Parameter]:
        """What the optimizer changes: the network, and whatever a subclass trains beside it."""
        return list(self.network.parameters())

    def configure_optimizers(self) -> AdamW:
        """AdamW (Loshchilov & Hutter 2019) that decays matrices, not biases and norms."""
        parameters = [parameter for parameter in self.trained_parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [
            {
                "params": [parameter for parameter in parameters if parameter.ndim > 1],
                "weight_decay": self.optimization.weight_decay,
            },
            {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
        # Lightning cannot clip under a fused optimizer that unscales the gradients itself.
        fused = not str(self.trainer.precision).startswith("16")
        return AdamW(groups, lr=self.optimization.learning_rate, betas=(0.9, self.optimization.adam_beta2), fused=fused)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip the norm of the gradient, and stop when there is none.

        Raises:
            TrainingError: The gradient is not finite, hence the loss was not.
        """
        norm = torch.nn.utils.clip_grad_norm_(self.trained_parameters(), self.optimization.gradient_clip)
        # In half precision the scaler takes such steps back and goes on with a smaller factor.
        if not math.isfinite(float(norm)) and not str(self.trainer.precision).startswith("16"):
            raise TrainingError(
                f"the loss or its gradient is not finite in epoch {self.current_epoch + 1}, "
                f"step {self.trainer.fit_loop.batch_idx + 1}",
                f"Lower optimization.learning_rate (it is {self.optimization.learning_rate}) "
                f"or optimization.gradient_clip (it is {self.optimization.gradient_clip}).",
            )

    @torch.no_grad()
    def _move_average(self, average: Any, current: Any, steps: Any) -> None:
        # The first steps are forgotten sooner, as in TensorFlow's ExponentialMovingAverage.
        decay = min(self.optimization.average_decay, (1 + int(steps)) / (10 + int(steps)))
        torch._foreach_lerp_(average, current, 1 - decay)


class SupervisedTraining(NetworkTraining):
    """Learns what users did. Above a set size of the catalogue the softmax is sampled.

    Args:
        network, optimization, seed, task, extra_loss: See :class:`NetworkTraining`.
    """

    def __init__(
        self,
        network: PredictionNetwork,
        optimization: OptimizationSettings,
        seed: int,
        *,
        task: Task,
        extra_loss: ExtraLoss | None = None,
    ) -> None:
        super().__init__(network, optimization, seed, task, extra_loss)
        large = network.head is not None and network.outcomes > optimization.full_softmax_up_to
        self._sampler = NegativeSampler(task.outcome_counts) if large else None

    def loss_sum(self, batch: Batch) -> torch.Tensor:
        """Cross entropy with the observed outcomes."""
        head, hidden = self.network.head, self.network.encode(*batch.inputs)
        if self._sampler is not None and head is not None:
            negatives = self._sampler.draw(self.optimization.negatives)
            chance = self._sampler.log_probability[negatives].to(self.device)
            negatives = negatives.to(self.device)
            return observed_sampled_softmax(hidden, head, batch.targets, negatives, chance, left_out=batch.left_out)
        objective = self._objective(batch)
        if batch.left_out is not None:
            objective = AskedFor(objective, batch.left_out)
        if head is not None:
            return linear_head_loss(hidden, head, objective)
        return objective.values(self.network.score(hidden)).sum()

    def _objective(self, batch: Batch) -> Objective:
        if self.is_bernoulli:
            targets, shift = batch.targets, self.log_odds_shift
            return PlainObjective(lambda logits, rows: binary_cross_entropy(logits, targets[rows], shift))
        return HardObjective(batch.targets, self.optimization.label_smoothing)
