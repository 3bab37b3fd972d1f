"""What a network has to beat at telling yes from no: the item alone, and a linear model of all values."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse

from components.data.labelled import LabelledDataset
from components.settings.labelled_prepare import USER
from components.tasks.batch import EvaluationBatch, Scorer

_PRIOR = 10.0  # Rows of the average item that every item is given.
_ITERATIONS = 200


def item_rate_scorer(dataset: LabelledDataset) -> Scorer:
    """Log of the odds of a yes among an item's training rows, drawn to the average where there are few."""
    learned = dataset.split == 0
    rate = float(dataset.label[learned].mean())
    target = dataset.record["features"]["target"]
    place = dataset.categories[:, target]
    size = int(dataset.record["features"]["rows"])
    yes = np.bincount(place[learned], weights=dataset.label[learned], minlength=size) + _PRIOR * rate
    share = yes / (np.bincount(place[learned], minlength=size) + _PRIOR)
    odds = torch.from_numpy(np.log(share / (1 - share)))
    return lambda batch: odds[torch.from_numpy(batch.feed["categories"][:, target])].unsqueeze(1)


def one_hot_scorer(dataset: LabelledDataset) -> Scorer:
    """Logistic regression on a column a user and a value of every feature, and the normalised numbers; no history.

    Learned from the same rows as the networks; where some with a no are left out, its intercept takes it into account.
    """
    from sklearn.linear_model import LogisticRegression

    layout = dataset.record["features"]
    numbers = list(layout["numbers"].values())
    singles = list(layout["single"])
    others = [column for column in range(layout["columns"]) if singles[column : column + 1] != [USER]]
    mean, scale = (np.array([number[name] for number in numbers]) for name in ("mean", "scale"))

    def columns(users: np.ndarray, categories: np.ndarray, values: np.ndarray) -> sparse.csr_array:
        # Who it is, always and once: a linear model has nothing else to know a user's habits by.
        categories = np.concatenate([categories[:, others], users[:, None] + layout["rows"]], axis=1)
        row = np.repeat(np.arange(len(categories)), categories.shape[1])
        place = categories.ravel()
        there = place > 0
        shape = (len(categories), layout["rows"] + dataset.record["users"])
        found = sparse.csr_array((np.ones(int(there.sum()), np.float32), (row[there], place[there])), shape=shape)
        if not numbers:
            return found
        missing = np.isnan(values)
        filled = np.where(missing, 0.0, (values - mean) / scale).clip(-5, 5)
        return sparse.csr_array(sparse.hstack([found, filled, missing.astype(np.float32)], format="csr"))

    rows = dataset.learned
    linear = LogisticRegression(max_iter=_ITERATIONS)
    linear.fit(columns(dataset.user[rows], dataset.categories[rows], dataset.numbers[rows]), dataset.label[rows])
    kept = float(np.log(dataset.record["settings"]["negatives_kept"]))

    def score(batch: EvaluationBatch) -> torch.Tensor:
        values = batch.feed.get("numbers", np.zeros((len(batch.targets), 0), np.float32))
        found = linear.decision_function(columns(batch.users.numpy(), batch.feed["categories"], values))
        return torch.from_numpy(found + kept).unsqueeze(1)

    return score
