"""Local files that are damaged: found before a wrong label reaches anybody, healed where there is another copy."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from components.errors import IntegrityError, StorageError
from components.soft_labels.labels import SoftLabels
from components.soft_labels.manifest import Manifest
from components.soft_labels.reader import SoftLabelReader
from components.storage.contract import ObjectStore
from components.storage.folder_store import FolderStore
from components.storage.object_store import open_store
from tests.integration.killed_writers import POINTS, Board, LoggedTeacher, dataset_of, ended, forked, write
from tests.integration.naive import TrustingReader

PLACES, MOMENTS = ("disk cache", "store"), ("before", "while open")
ROUNDS = 10
OpenReader = Callable[[ObjectStore, Manifest, Path], Any]


def flip(files: list[Path], seeded: random.Random) -> list[Path]:
    """Another bit somewhere."""
    path = seeded.choice(files)
    with path.open("r+b") as stream:
        place = seeded.randrange(path.stat().st_size)
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ (1 << seeded.randrange(8))]))
    return [path]


def cut(files: list[Path], seeded: random.Random) -> list[Path]:
    """The end is missing."""
    path = seeded.choice(files)
    os.truncate(path, seeded.randrange(path.stat().st_size))
    return [path]


def zero(files: list[Path], seeded: random.Random) -> list[Path]:
    """Some of it was never written by a file system that had only made room."""
    path = seeded.choice(files)
    with path.open("r+b") as stream:
        stream.seek(seeded.randrange(path.stat().st_size - 100))
        stream.write(bytes(100))
    return [path]


def swap(files: list[Path], seeded: random.Random) -> list[Path]:
    """Each of two has the other's content."""
    one, other = seeded.sample(files, 2)
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    return [one, other]


def delete(files: list[Path], seeded: random.Random) -> list[Path]:
    path = seeded.choice(files)
    path.unlink()
    return [path]


class Case(NamedTuple):
    """One damage."""

    kind: Callable[[list[Path], random.Random], list[Path]]
    place: str
    moment: str
    seed: int


_KINDS = (flip, cut, zero, swap, delete)
CASES = [
    Case(kind, place, moment, seed)
    for seed, (kind, place, moment, _) in enumerate(itertools.product(_KINDS, PLACES, MOMENTS, range(ROUNDS)))
]


class Bench:
    """A whole cache, near and far, and what its labels are."""

    def __init__(self, far: ObjectStore, folder: Path) -> None:
        self.far, self.folder = far, folder
        self.near = FolderStore(folder / "whole")
        teacher = LoggedTeacher(folder / "log")
        self.manifest = write(self.near, teacher, dataset_of("corruption"))
        assert write(far, teacher, dataset_of("corruption")) == self.manifest
        self.points = torch.randperm(POINTS, generator=torch.Generator().manual_seed(0))
        self.expected = SoftLabelReader(self.near, self.manifest, folder / "unused").labels(self.points)

    def right(self, labels: SoftLabels) -> bool:
        return all(
            torch.equal(one, other)
            for one, other in zip(labels, self.expected, strict=True)
            if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)
        )

    def survives(self, case: Case, open_reader: OpenReader, board: Board) -> None:
        """Damage files and read; counts what comes of it."""
        seeded, place = random.Random(case.seed), self.folder / str(case.seed)
        store: ObjectStore = self.far
        if case.place == "store":
            shutil.copytree(self.folder / "whole", place / "store")
            store = FolderStore(place / "store")
        cache = place / "cache"
        reader = open_reader(store, self.manifest, cache)
        assert self.right(reader.labels(self.points))
        files = sorted((place / "store" if case.place == "store" else cache).rglob("*.safetensors"))
        assert len(files) == len(self.manifest.parts)
        before = {path: path.read_bytes() for path in files}
        case.kind(files, seeded)
        damaged = [path for path in files if not path.is_file() or path.read_bytes() != before[path]]
        assert damaged
        readers = [open_reader(store, self.manifest, cache)]
        if case.moment == "while open":
            readers.insert(0, reader)
        told = False
        for number, one in enumerate(readers):
            try:
                if not self.right(one.labels(self.points)):
                    board["wrong"] += 1
                    return
            except (IntegrityError, StorageError) as error:
                names = [path.name for path in damaged]
                told = any(name in error.message for name in names)
                if case.place != "store" or not told:
                    board["unclear"] += 1
                    return
            except Exception:
                board["unclear"] += 1
                return
            else:
                # A reader that had the file open has the labels of a file that has lost its name.
                told = told and number == 0
        healed = all(path.is_file() and path.read_bytes() == before[path] for path in files)
        board["told" if told else "healed" if healed else "wrong"] += 1
        shutil.rmtree(place)


@pytest.fixture
def bench(s3_environment, tmp_path: Path) -> Bench:
    return Bench(open_store(f"s3://{s3_environment.new_bucket()}"), tmp_path)


def outcome(bench: Bench, open_reader: OpenReader) -> Board:
    """All damages, one after the other, in a process that may die of them."""
    board = Board("told healed wrong unclear")
    status = ended(forked(lambda: [bench.survives(case, open_reader, board) for case in CASES]))
    assert status == 0
    return board


def test_200_damages_are_200_times_found_and_healed_or_told(bench: Bench) -> None:
    board = outcome(bench, SoftLabelReader)
    found = board["told"] + board["healed"]
    print(
        f"corruptions={len(CASES)} found={found} healed={board['healed']} told={board['told']} wrong={board['wrong']}"
    )
    assert len(CASES) == 200
    assert board["healed"] == 100
    assert board["told"] == 100
    assert board["wrong"] == board["unclear"] == 0


def test_the_same_damages_reach_who_trusts_local_files(bench: Bench) -> None:
    board = outcome(bench, TrustingReader)
    print(f"naive: corruptions={len(CASES)} wrong={board['wrong']} unclear={board['unclear']}")
    assert board["wrong"] > 20
