"""One part of a cache, finished the same way by a thread, by a Dask worker and by a process of its own.

A part's bytes depend on the teacher, the data set, the settings and the part's number, and on nothing else: whoever
scores it computes with one thread, in batches and chunks of a fixed size that begin with the part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from components.errors import DataError, IntegrityError, SettingsError
from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.codecs.base import Codec
from components.soft_labels.codecs.building import codec_for
from components.soft_labels.manifest import TEACHER_SHIFT, TEACHER_TEMPERATURE, CacheIdentity, Part
from components.soft_labels.parts import part_bytes, part_of, stored_bytes, uniforms_of
from components.soft_labels.publishing import is_sound, publish_part, recorded_part
from components.storage.contract import ObjectStore
from components.tasks.batch import LEAST, Batch, Pairs, pairs_of

# Windows that the teacher reads at once: on a CPU so few that what lies between two layers stays near it (a third
# faster than 64), on a GPU enough to keep it busy. Not a setting: another number could change the last bit of a label.
_BATCH_SIZE = {"cpu": 16, "cuda": 512}
# Logits that exist at once, so that memory does not grow with the catalogue.
_LOGITS_AT_ONCE = {"cpu": 1 << 21, "cuda": 1 << 27}
_LARGEST_PART_BYTES = 64 << 20

Advance = Callable[[int, bool], None]
"""Called with a number of rows that are done, and whether they were there already. What it raises ends the work."""


class ScoringTask(Protocol):
    """What the writer needs of a task."""

    @property
    def outcomes(self) -> int:
        """K."""

    @property
    def points(self) -> int:
        """P, the number of training points."""

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """The points ``first`` to ``stop - 1`` in ascending order."""


@dataclass(frozen=True)
class CachePlan:
    """What a cache is of, and how its rows fall into parts.

    Attributes:
        identity: Of the cache.
        rows: P, all prediction points.
    """

    identity: CacheIdentity
    rows: int

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return -(-self.rows // self.identity.rows_per_part)

    def points(self, number: int) -> range:
        """The points of a part."""
        first = number * self.identity.rows_per_part
        return range(first, min(first + self.identity.rows_per_part, self.rows))


class Scorer:
    """A teacher on its device, and what of its distribution is kept. Threads may share it.

    Args:
        teacher: Gives logits ``(N, K)``.
        task: Gives the points, 0 to P - 1, in order.
        settings: What is kept.
        device: Where the teacher computes: the CPU, or a GPU.
        temperature: By what its logits are divided, see :mod:`components.soft_labels.calibration`.
        shift: What is added to them then, where there is one outcome.

    Raises:
        DataError: There are no points.
        SettingsError: The codec is not for so many outcomes.
    """

    def __init__(
        self,
        teacher: PredictionNetwork,
        task: ScoringTask,
        settings: SoftLabelSettings,
        device: torch.device | None = None,
        *,
        temperature: float = 1.0,
        shift: float = 0.0,
    ) -> None:
        if task.points < 1:
            raise DataError("there is no training point to score", "Give a data set with longer histories.")
        self._device = device or torch.device("cpu")
        self._temperature, self._shift = temperature, shift
        self._teacher, self._task, self._settings = teacher.eval().to(self._device), task, settings
        self.codec = codec_for(settings, task.outcomes, self._hidden_dim() if settings.hidden_states else 0)

    def plan(self, teacher_digest: str, dataset_digest: str) -> CachePlan:
        """The cache of this teacher on this task's data set, which have these digests."""
        calibrated = {} if self._temperature == 1.0 else {TEACHER_TEMPERATURE: self._temperature}
        if self._shift:
            calibrated[TEACHER_SHIFT] = self._shift
        identity = CacheIdentity(
            teacher=teacher_digest,
            dataset=dataset_digest,
            codec={**self.codec.record(), **calibrated},
            outcomes=self._task.outcomes,
            compression=self._settings.compression,
            rows_per_part=rows_per_part(self._settings, self.codec),
        )
        return CachePlan(identity, self._task.points)

    def columns(self, points: range, uniforms: np.ndarray | None, advance: Advance) -> dict[str, np.ndarray]:
        """The stored arrays of a run of points, a row each.

        Args:
            points: Which.
            uniforms: Random numbers ``(len(points), codec.uniforms)``, for codecs that draw.
            advance: Told the rows of each batch.

        Raises:
            IntegrityError: The task gives other points.
            TrainingError: The teacher gives logits that are not finite.
        """
        columns = {name: np.empty((len(points), *form.shape), form.dtype) for name, form in self.codec.columns.items()}
        done = 0
        with torch.inference_mode():
            for batch in self._task.scoring_batches(points.start, points.stop, _BATCH_SIZE[self._device.type]):
                rows = len(batch.points)
                expected = points[done : done + rows]
                if not torch.equal(batch.points, torch.arange(expected.start, expected.start + rows)):
                    raise IntegrityError(f"the task gave other points than the ones from {expected.start} on")
                if len(expected) < rows:
                    raise IntegrityError(f"the task gave points beyond {points.stop - 1}")
                self._encode(self._hidden(batch), columns, done, uniforms, batch.known)
                done += rows
                advance(rows, False)
        if done != len(points):
            raise IntegrityError(f"the task gave {done} of {len(points)} points from {points.start} on")
        return columns

    def _encode(
        self,
        hidden: torch.Tensor,
        columns: dict[str, np.ndarray],
        first: int,
        uniforms: np.ndarray | None,
        known: Pairs | None,
    ) -> None:
        """Fill the rows from ``first`` on with what is kept of the teacher at some hidden states."""
        chunk = max(1, _LOGITS_AT_ONCE[self._device.type] // self._task.outcomes)
        for start in range(0, len(hidden), chunk):
            states = hidden[start : start + chunk]
            place = slice(first + start, first + start + len(states))
            logits = self._teacher.score(states)
            if self._temperature != 1.0:
                logits = logits / self._temperature
            if known is not None:
                logits[pairs_of(known, slice(start, start + len(states)))] = LEAST
            encoded = self.codec.encode(
                logits + self._shift if self._shift else logits,
                uniforms=None if uniforms is None else uniforms[place],
                hidden=states if self.codec.hidden_dim else None,
            )
            for name, column in columns.items():
                column[place] = encoded[name]

    def _hidden(self, batch: Batch) -> torch.Tensor:
        return self._teacher.encode(*(tensor.to(self._device) for tensor in batch.inputs))

    def _hidden_dim(self) -> int:
        with torch.inference_mode():
            return int(self._hidden(next(self._task.scoring_batches(0, 1, 1))).shape[1])


def finish_part(store: ObjectStore, plan: CachePlan, number: int, scorer: Scorer, advance: Advance) -> Part:
    """See that a part is in the store, whole and recorded: take over a finished one, or score it.

    A part is finished when its record lies beside it; the record is written after the part, and only if there is none,
    so that of several writers one decides which bytes count. A finished part is read back and checked, and scored
    again only if it is damaged or gone.

    The calling thread computes with one torch thread from here on.

    Args:
        store: Where the part goes.
        plan: The cache.
        number: The part, from 0.
        scorer: The teacher.
        advance: Told of rows that are done.

    Raises:
        IntegrityError: The task gives other points.
        TrainingError: The teacher gives logits that are not finite.
        StorageError: The store cannot be read or written.
    """
    identity, points = plan.identity, plan.points(number)
    recorded = recorded_part(store, identity, number, points.start, len(points))
    if recorded is not None and is_sound(store, identity, recorded, scorer.codec):
        advance(len(points), True)
        return recorded
    # OpenMP's number of threads is a thread's own, and sums that are split among threads round differently.
    torch.set_num_threads(1)
    uniforms = uniforms_of(identity, number, len(points), scorer.codec.uniforms)
    content = part_bytes(scorer.columns(points, uniforms, advance))
    stored = stored_bytes(content, identity.compression)
    part = part_of(
        number, points.start, len(points), content, scorer.codec, compression=identity.compression, stored=stored
    )
    return publish_part(store, identity, part, stored, replace=recorded is not None)


def rows_per_part(settings: SoftLabelSettings, codec: Codec) -> int:
    """What the settings say, or less, so that a part takes 64 MiB at most before it is compressed."""
    return max(1, min(settings.rows_per_part, _LARGEST_PART_BYTES // codec.bytes_per_row))


def device_of(accelerator: str) -> torch.device:
    """The device that Lightning would take for an accelerator.

    Raises:
        SettingsError: There is none of that kind.
    """
    gpu = torch.cuda.is_available()
    if accelerator == "cpu" or (accelerator == "auto" and not gpu):
        return torch.device("cpu")
    if accelerator in ("gpu", "cuda", "auto") and gpu:
        return torch.device("cuda")
    raise SettingsError(
        f"accelerator {accelerator!r} is not available on this machine", "Set `trainer.accelerator` to cpu or auto."
    )
