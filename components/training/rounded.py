"""Training with rounded weights: quantization-aware fine-tuning.

Each step computes with the weights as they will be stored, and its gradient moves the weights behind them, which are
kept in full: the straight-through estimator (Bengio, Léonard and Courville, 2013), as in Jacob et al., "Quantization
and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR 2018. What is validated is
rounded too; what is kept is not, since the stage that quantizes rounds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from components.networks.contract import PredictionNetwork
from components.training.module import NetworkTraining


class WeightRounding(Protocol):
    """Gives the rounded values of a network's weights."""

    def __call__(self, network: PredictionNetwork, anew: bool) -> Mapping[str, torch.Tensor]:
        """By name in the state dict; ``anew``: search for ranges and codebooks again."""

    def record(self) -> dict[str, Any]:
        """JSON-able; what the values depend on beside the weights."""


class RoundedWeights(Callback):
    """Exchanges the weights for rounded ones where they are computed with, and gives them back.

    Args:
        rounding: To what.
    """

    def __init__(self, rounding: WeightRounding) -> None:
        self._rounding, self._anew = rounding, True
        self._network: PredictionNetwork | None = None
        self._kept: dict[str, torch.Tensor] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Ranges are searched at the start of an epoch, so that a resumed training has the same."""
        self._anew = True

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Compute the step with rounded weights."""
        assert isinstance(pl_module, NetworkTraining)
        self._round(pl_module.network, self._anew)
        self._anew = False

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """The optimizer moves the full weights."""
        self._give_back()

    def on_train_batch_end(self, *_: Any) -> None:
        """After a batch whose gradients are only gathered there was no step."""
        self._give_back()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validate what will be served."""
        assert isinstance(pl_module, NetworkTraining)
        self._round(pl_module.kept_network, True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Before the best weights are kept."""
        self._give_back()

    @torch.no_grad()
    def _round(self, network: PredictionNetwork, anew: bool) -> None:
        parameters = dict(network.named_parameters())
        for name, value in self._rounding(network, anew).items():
            self._kept[name] = parameters[name].detach().clone()
            parameters[name].copy_(value)
        self._network = network

    @torch.no_grad()
    def _give_back(self) -> None:
        if self._network is not None:
            parameters = dict(self._network.named_parameters())
            for name, value in self._kept.items():
                parameters[name].copy_(value)
        self._network, self._kept = None, {}
