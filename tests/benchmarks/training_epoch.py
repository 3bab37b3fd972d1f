"""CPU seconds of one training epoch on ML-1M, through the same ``fit`` that every stage calls.

``python -m tests.benchmarks.training_epoch ml-1m.txt.gz``: the file of the SASRec papers, ``user item`` a line in time
order. Length 200, d=64, 2 blocks, full softmax over 3,416 items; every interaction but the two held out of each user,
and the first of each user, which nothing can predict, is a target. One epoch is measured after another has warmed up.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np
import polars as pl

from components.data.dataset import PreparedDataset, content_digest
from components.settings.network import CausalTransformerSettings
from components.settings.threads import threads_per_network
from components.settings.training import OptimizationSettings, TrainerSettings
from components.tasks.next_item import NextItem
from components.training.fitting import fit, initial_network

LENGTH = 200


def read(path: Path) -> PreparedDataset:
    """Leave one out, in the order of the file."""
    table = pl.read_csv(path, separator=" ", has_header=False, new_columns=["user", "item"])
    return leave_one_out(table, path.parent)


def leave_one_out(table: pl.DataFrame, folder: Path) -> PreparedDataset:
    """Users and items of a table, a row an event, each user's in the order of time; the last two are held out."""
    user = table["user"].rank("dense").to_numpy() - 1
    item = (table["item"].rank("dense").to_numpy() - 1).astype(np.int32)
    order = np.argsort(user, kind="stable")
    item, counts = item[order], np.bincount(user)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    split = np.zeros(len(item), dtype=np.int8)
    split[offsets[1:] - 1], split[offsets[1:] - 2] = 2, 1
    point = np.full(len(item), -1, dtype=np.int64)
    predicted = split == 0
    predicted[offsets[:-1]] = False
    point[predicted] = np.arange(predicted.sum())
    timestamp = np.arange(len(item), dtype=np.int64)
    digest = content_digest(item, timestamp, split, offsets, [])
    record = {"digest": digest, "items": int(item.max()) + 1, "points": int(predicted.sum())}
    return PreparedDataset(record, item, timestamp, split, offsets, point, folder)


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    dataset = read(Path(sys.argv[1]))
    task = NextItem(dataset, LENGTH)
    shape = CausalTransformerSettings(dim=64, blocks=2, heads=2, ffn_dim=256, max_length=LENGTH, dropout=0.2)
    spent = []
    for epochs in (1, 2):
        network = initial_network(shape, task.outcomes, seed=0)
        optimization = OptimizationSettings(max_epochs=epochs, patience=epochs, batch_size=16)
        started = cpu_seconds()
        fit(network, task, optimization, TrainerSettings(), seed=0, threads=threads_per_network())
        spent.append(cpu_seconds() - started)
    print(f"interactions={len(dataset.item)}")
    print(f"targets={dataset.points}")
    # The difference of two runs leaves out what is spent once; the validation of 6,040 users is part of an epoch.
    print(f"epoch_cpu_s={spent[1] - spent[0]:.2f}")


if __name__ == "__main__":
    main()
