"""What tests let other processes do with a reader: functions of a module that can be imported there."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.soft_labels.codecs.building import codec_of
from components.soft_labels.disk_cache import DiskCache
from components.soft_labels.labels import SoftLabels
from components.soft_labels.manifest import Manifest
from components.soft_labels.parts import content_of, part_columns
from components.soft_labels.reader import SoftLabelReader
from components.storage.contract import ObjectStore
from tests.unit.soft_labels.synthetic_cache import expected_labels, same_labels
from tests.unit.soft_labels.table_teacher import FarStore


class SlowStore(FarStore):
    """Takes a while for each part, and writes down what was fetched by whichever process."""

    def __init__(self, folder: Path, seconds: float = 0.05) -> None:
        super().__init__(folder)
        self.seconds, self.log = seconds, folder.with_name("requests.txt")

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        with self.log.open("a") as log:
            log.write(f"{key}\n")
        time.sleep(self.seconds)
        super().get_to_file(key, path, sha256)

    def requests(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


class KillingStore(FarStore):
    """The process dies when half of a part has arrived."""

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        path.with_name(f".{path.name}.half").write_bytes(self.get(key)[:1000])
        os.kill(os.getpid(), signal.SIGKILL)


class WholeReader:
    """The naive twin of a reader in little memory: the whole cache in it."""

    def __init__(self, store: ObjectStore, manifest: Manifest, folder: Path, **options: Any) -> None:
        self._codec = codec_of(manifest.codec, manifest.outcomes)
        pieces: dict[str, list[np.ndarray]] = {}
        for part in manifest.parts:
            content = content_of(store.get(manifest.key(part.name), part.sha256), part)
            for name, column in part_columns(content, self._codec, part.rows, part.name).items():
                pieces.setdefault(name, []).append(column)
        self._columns = {name: np.concatenate(columns) for name, columns in pieces.items()}

    def labels(self, points: torch.Tensor) -> SoftLabels:
        return self._codec.decode({name: column[points.numpy()] for name, column in self._columns.items()})


def peak_growth(kind: type, store: ObjectStore, manifest: Manifest, folder: Path, answers: Any, **options: Any) -> None:
    """Bytes by which reading all of a cache in random order raises this process's peak of memory, file pages too."""
    random = torch.Generator().manual_seed(0)
    torch.randperm(1000, generator=random)
    codec_of(manifest.codec, manifest.outcomes)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    reader = kind(store, manifest, folder, **options)
    for start in range(0, 200_000, 4_000):
        reader.labels(torch.randint(0, manifest.rows, (4_000,), generator=random) if start else torch.arange(4_000))
    # A whole part at once, row after row, is as bad as it can get.
    reader.labels(torch.arange(manifest.rows_per_part))
    answers.put(_memory("VmHWM") - before)


def read_right(reader: SoftLabelReader, truth: ObjectStore, rounds: int, seed: int, answers: Any) -> None:
    """How many of some rounds of random labels are what they should be."""
    random = torch.Generator().manual_seed(seed)
    right = 0
    for _ in range(rounds):
        points = torch.randint(0, reader.rows, (50,), generator=random)
        right += same_labels(reader.labels(points), expected_labels(truth, reader.manifest, points))
    answers.put(right)


def fetch(store: ObjectStore, manifest: Manifest, folder: Path) -> None:
    """Bring the first part."""
    part = manifest.parts[0]
    DiskCache(folder).fetch(store, manifest.key(part.name), part).close()


def _memory(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) << 10
