"""What happens at the end of an epoch: keep the best weights, leave a place to resume from, say a line."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, RichProgressBar

from components.training.module import VALIDATION, NetworkTraining


class Epoch(NamedTuple):
    """One row of a training curve.

    Attributes:
        epoch: From 1.
        train_loss: Mean over the prediction points, in nats.
        validation: The task's primary measure on the validation points.
    """

    epoch: int
    train_loss: float
    validation: float


class BestWeights(Callback):
    """Keeps the training curve, and the weights of its best epoch.

    Attributes:
        curve: A row an epoch.
        best: The greatest validation of all epochs.
        weights: State of the network at that epoch, on the CPU.
    """

    def __init__(self) -> None:
        self.curve: list[Epoch] = []
        self.best = -1.0
        self.weights: dict[str, torch.Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take in the epoch that was just validated."""
        assert isinstance(pl_module, NetworkTraining)
        quality = float(trainer.callback_metrics[VALIDATION])
        self.curve.append(Epoch(trainer.current_epoch + 1, pl_module.train_loss(), quality))
        if quality > self.best:
            self.best = quality
            prefix = "network." if pl_module.average is None else "average.module."
            self.weights = {
                name.removeprefix(prefix): tensor.detach().cpu().clone()
                for name, tensor in trainer.strategy.lightning_module_state_dict().items()
                if name.startswith(prefix)
            }

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to know."""
        return {"curve": [list(row) for row in self.curve], "best": self.best, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self.curve = [Epoch(*row) for row in state_dict["curve"]]
        self.best, self.weights = state_dict["best"], state_dict["weights"]


class ResumePoint(Callback):
    """Writes the whole state of the training after each epoch, over the one before.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the state, except when training ends here: a resumed run would go on beyond the end."""
        if not trainer.should_stop:
            trainer.save_checkpoint(self.path)


class EpochWatch(Callback):
    """Tells somebody of each epoch, who ends the training by raising.

    Args:
        watch: Is given the epoch that has just ended.
    """

    def __init__(self, watch: Callable[[Epoch], None]) -> None:
        self._watch = watch

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Tell of the epoch that was just validated."""
        kept = _best_weights(trainer)
        if trainer.is_global_zero and kept.curve:
            self._watch(kept.curve[-1])


class TrainingBar(RichProgressBar):
    """Lightning's bar for the epoch, with what counts for the training: how good it is, and the time left in all.

    Args:
        name: Of the network.
        epochs: How many there are at most.
    """

    def __init__(self, name: str, epochs: int) -> None:
        super().__init__()
        self._name, self._epochs = name, epochs
        self._started, self._before = time.monotonic(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a resumed run has some epochs behind it."""
        super().on_train_start(trainer, pl_module)
        self._started, self._before = time.monotonic(), trainer.current_epoch

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Nothing behind the bar, where a narrow terminal would cut it off."""
        return {}

    def _get_train_description(self, current_epoch: int) -> str:
        words = [f"{self._name} {current_epoch + 1}/{self._epochs}"]
        if (done := current_epoch - self._before) > 0:
            seconds = (time.monotonic() - self._started) / done
            words.append(f"best {_best_weights(self.trainer).best:.4f}")
            words.append(f"{seconds * (self._epochs - current_epoch):.0f} s left")
        return ", ".join(words)


class EpochLines(Callback):
    """One plain line an epoch, for logs and other places that are no terminal.

    Args:
        name: Of the network, at the start of each line.
        epochs: How many there are at most.
        measure: What is validated.
    """

    def __init__(self, name: str, epochs: int, measure: str) -> None:
        self._name, self._epochs, self._measure = name, epochs, measure
        self._started, self._before = time.monotonic(), 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; a resumed run has some epochs behind it."""
        self._started, self._before = time.monotonic(), trainer.current_epoch
        if self._before and trainer.is_global_zero:
            say(f"{self._name} resumes after epoch {self._before}/{self._epochs}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say how far it is, how good, and how long it may take."""
        kept = _best_weights(trainer)
        if not trainer.is_global_zero or not kept.curve:
            return
        row = kept.curve[-1]
        seconds = (time.monotonic() - self._started) / max(1, row.epoch - self._before)
        left = "stopped early" if trainer.should_stop else f"{seconds * (self._epochs - row.epoch):.0f} s left"
        say(
            f"{self._name} epoch {row.epoch}/{self._epochs} loss {row.train_loss:.3f} "
            f"validation {self._measure} {row.validation:.4f} (best {kept.best:.4f}) {left}"
        )


def _best_weights(trainer: pl.Trainer) -> BestWeights:
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next(callback for callback in callbacks if isinstance(callback, BestWeights))


def say(line: str) -> None:
    """Write a line for whoever watches the training."""
    # One write a line: the lines of networks that train side by side must not run into one another.
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
