"""What needs no training: popularity, and the nearest neighbours of the items in a history.

Both are in the report because a network that does not beat them is not worth its bytes. Item-kNN after Sarwar et al.,
"Item-based collaborative filtering recommendation algorithms", WWW 2001.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from components.data.dataset import PreparedDataset
from components.tasks.batch import EvaluationBatch, Scorer

# Similarities held in memory at once, when every item of a chunk is similar to every other.
_CELLS = 1 << 24


def popularity_scorer(dataset: PreparedDataset) -> Scorer:
    """Every item scores its number of training events, for everybody."""
    counts = torch.from_numpy(dataset.train_counts.astype(np.float32))
    return lambda batch: counts.expand(len(batch.targets), -1)


def item_knn_scorer(dataset: PreparedDataset, neighbours: int) -> Scorer:
    """An item scores the sum of its similarities to the items of the history.

    Args:
        dataset: Its training events make the similarities.
        neighbours: Most similar items that each item is allowed to recommend.
    """
    similar = item_similarities(dataset, neighbours)

    def score(batch: EvaluationBatch) -> torch.Tensor:
        assert batch.seen is not None
        row, item = (part.numpy() for part in batch.seen)
        shape = (len(batch.targets), dataset.items)
        history = sparse.csr_array((np.ones(len(row), dtype=np.float32), (row, item)), shape=shape)
        history.data[:] = 1  # an item that was met twice still counts once
        return torch.from_numpy((history @ similar).toarray())

    return score


def item_similarities(dataset: PreparedDataset, neighbours: int) -> sparse.csr_array:
    """Cosine similarity between the sets of users of two items, ``(items, items)``, most similar neighbours only.

    Row i holds the ``neighbours`` items most similar to item i, and never i itself. Of equally similar items those
    with the lower index stay.
    """
    training = dataset.split == 0
    users_of = sparse.csr_array(
        (np.ones(int(training.sum()), dtype=np.float32), (dataset.item[training], dataset.user[training])),
        shape=(dataset.items, dataset.users),
    )
    users_of.data[:] = 1
    length = np.sqrt(users_of.sum(axis=1))
    normed = sparse.diags_array(1 / np.maximum(length, 1)) @ users_of
    chunk = max(1, _CELLS // dataset.items)
    rows = [
        _strongest(normed[start : start + chunk] @ normed.T, start, neighbours)
        for start in range(0, dataset.items, chunk)
    ]
    return sparse.vstack(rows, format="csr", dtype=np.float32)


def _strongest(similar: sparse.csr_array, first: int, neighbours: int) -> sparse.csr_array:
    """The largest values of each row, without the item itself (row r is item ``first + r``)."""
    found = similar.tocoo()
    row, column = found.coords
    other = column != row + first
    row, column, value = row[other], column[other], found.data[other]
    order = np.lexsort((column, -value, row))
    place = np.arange(len(order)) - np.searchsorted(row[order], row[order])
    order = order[place < neighbours]
    return sparse.csr_array((value[order], (row[order], column[order])), shape=similar.shape)
