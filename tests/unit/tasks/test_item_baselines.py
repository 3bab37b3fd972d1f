from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.dataset import PreparedDataset
from components.tasks.batch import EvaluationBatch
from components.tasks.item_baselines import item_knn_scorer, item_similarities, popularity_scorer

# Items 0 and 1 share both of their users, item 2 shares one of its two with them, item 3 none.
HISTORIES = [[0, 1], [0, 1, 2], [2, 3, 3]]


@pytest.fixture
def dataset() -> PreparedDataset:
    item = np.concatenate(HISTORIES).astype(np.int32)
    return PreparedDataset(
        record={"items": 4},
        item=item,
        timestamp=np.arange(len(item)),
        split=np.zeros(len(item), dtype=np.int8),
        offsets=np.cumsum([0, *map(len, HISTORIES)]),
        point=np.full(len(item), -1),
        folder=Path(),
    )


def batch_of(*histories: list[int]) -> EvaluationBatch:
    rows = [row for row, history in enumerate(histories) for _ in history]
    seen = (torch.tensor(rows), torch.tensor([item for history in histories for item in history]))
    count = len(histories)
    return EvaluationBatch((), {}, torch.zeros(count, dtype=torch.int64), torch.arange(count), seen)


def test_similarity_is_the_cosine_of_the_sets_of_users(dataset: PreparedDataset) -> None:
    expected = np.array(
        [[0, 1, 0.5, 0], [1, 0, 0.5, 0], [0.5, 0.5, 0, 1 / np.sqrt(2)], [0, 0, 1 / np.sqrt(2), 0]], dtype=np.float32
    )
    np.testing.assert_allclose(item_similarities(dataset, neighbours=4).toarray(), expected, rtol=1e-6)


def test_each_item_keeps_its_most_similar_neighbours_only(dataset: PreparedDataset) -> None:
    kept = item_similarities(dataset, neighbours=1).toarray()
    assert [np.flatnonzero(row).tolist() for row in kept] == [[1], [0], [3], [2]]


def test_an_item_scores_the_sum_over_the_history_and_repeats_count_once(dataset: PreparedDataset) -> None:
    scores = item_knn_scorer(dataset, neighbours=4)(batch_of([0, 1], [2, 2]))
    assert scores.shape == (2, 4)
    assert scores[0].tolist() == pytest.approx([1, 1, 1, 0])
    assert scores[1].tolist() == pytest.approx([0.5, 0.5, 0, 1 / np.sqrt(2)])


def test_popularity_is_the_same_for_everybody(dataset: PreparedDataset) -> None:
    assert popularity_scorer(dataset)(batch_of([0], [3])).tolist() == [[2, 2, 2, 2]] * 2
