"""A teacher and a task as small as they can be, and a store as far away as S3."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.manifest import Manifest
from components.soft_labels.writer import write_cache
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.tasks.batch import Batch

OUTCOMES, POINTS = 30, 250
SETTINGS = SoftLabelSettings(codec="top_k_tail", k=8, rows_per_part=100)


class TableTask:
    """Point i has the input i, in batches that do not end where parts do."""

    outcomes, points = OUTCOMES, POINTS

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        for start in range(first, stop, 32):
            points = torch.arange(start, min(start + 32, stop))
            yield Batch(inputs=(points,), targets=points % OUTCOMES, points=points, step_points=len(points))


class TableTeacher(PredictionNetwork):
    """Logits from a table, one row a point; counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.table = 3 * torch.randn(POINTS, OUTCOMES, generator=torch.Generator().manual_seed(0))
        self.scored: list[int] = []
        self.stop_at: int | None = None

    def record(self) -> dict[str, Any]:
        return {}

    def encode(self, *inputs: Any, **named: Any) -> torch.Tensor:
        points = inputs[0]
        if self.stop_at is not None and int(points[-1]) >= self.stop_at:
            raise KeyboardInterrupt
        self.scored += points.tolist()
        return self.table[points]

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden

    @property
    def outcomes(self) -> int:
        return OUTCOMES


class FarStore(FolderStore):
    """A folder whose files the reader may not use where they are, and that counts what is fetched."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.fetched: list[str] = []

    def local_file(self, key: str) -> Path | None:
        return None

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        self.fetched.append(key)
        super().get_to_file(key, path, sha256)


def cache_in(
    store: ObjectStore, teacher: TableTeacher, settings: SoftLabelSettings = SETTINGS, workers: int = 1
) -> Manifest:
    return write_cache(
        store,
        teacher,
        TableTask(),
        settings,
        teacher_digest="a" * 64,
        dataset_digest="b" * 64,
        show=False,
        workers=workers,
    )
