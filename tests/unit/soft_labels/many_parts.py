"""A process that writes a cache of many parts and tells its peak memory in MiB.

Arguments: a folder for the store, the number of parts, and ``naive`` for a writer that keeps what it has written.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from components.networks.contract import PredictionNetwork
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels import scoring
from components.soft_labels.writer import write_cache
from components.storage.folder_store import FolderStore
from components.tasks.batch import Batch

OUTCOMES, ROWS = 64, 8192
PART_MIB = 2 * OUTCOMES * ROWS / 2**20


class Constant(PredictionNetwork):
    def record(self) -> dict[str, Any]:
        return {}

    def encode(self, *inputs: Any, **named: Any) -> torch.Tensor:
        return inputs[0].unsqueeze(1).float()

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden % 7 + torch.arange(OUTCOMES)

    @property
    def outcomes(self) -> int:
        return OUTCOMES


class Points:
    outcomes = OUTCOMES

    def __init__(self, points: int) -> None:
        self.points = points

    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        for start in range(first, stop, 1024):
            points = torch.arange(start, min(start + 1024, stop))
            yield Batch(inputs=(points,), targets=points, points=points, step_points=len(points))


def main(folder: str, parts: str, how: str = "") -> None:
    kept: list[bytes] = []
    if how == "naive":
        publish = scoring.publish_part

        def keeping(store: Any, identity: Any, part: Any, stored: bytes, replace: bool) -> Any:
            kept.append(stored)
            return publish(store, identity, part, stored, replace)

        scoring.publish_part = keeping
    write_cache(
        FolderStore(Path(folder)),
        Constant(),
        Points(ROWS * int(parts)),
        SoftLabelSettings(codec="dense", rows_per_part=ROWS),
        teacher_digest="a" * 64,
        dataset_digest="b" * 64,
        show=False,
        workers=2,
    )
    # Not getrusage: that peak outlives exec, and so may be the one of whoever started this process.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)


if __name__ == "__main__":
    main(*sys.argv[1:])
