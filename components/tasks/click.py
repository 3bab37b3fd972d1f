"""Task ``click``: does something come of a row of a user, an item and what is known of them?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import polars as pl
import torch

from components.data.dataset import SPLITS, Split
from components.data.features import Features
from components.data.labelled import LabelledDataset, read_labelled_dataset
from components.data.people import user_ids
from components.data.preparing_labelled import prepare_labelled
from components.data.rows import FEATURE
from components.errors import SettingsError
from components.settings.base import Settings
from components.settings.evaluation import EvaluationSettings
from components.settings.labelled_prepare import USER, LabelledPrepareSettings
from components.tasks.batch import Feed
from components.tasks.beyond import Population
from components.tasks.click_baselines import item_rate_scorer, one_hot_scorer
from components.tasks.contract import Baseline, Judgement, Measure, Strata, Task, Wording
from components.tasks.full_ranking import popularity_strata
from components.tasks.held_out_rows import HeldOutRows, held_out_rows
from components.tasks.probability_of_yes import AreaUnderCurve, influences, probability_figures
from components.tasks.rowwise import RowwiseTask
from components.tasks.telling import VALUES_FILE


class Click(RowwiseTask):
    """One logit a row: the log of the odds that something comes of it.

    The inputs are ``categories`` ``(B, C)`` int64 and, where the data set has them, ``numbers`` ``(B, D)`` float32,
    ``history`` ``(B, length)`` int64 and ``happened`` ``(B, length)`` int64, newest event first.
    """

    name = "click"
    loss = "bernoulli"
    # A batch is counted in histories, each of which has many points in other tasks; here a row is one.
    rows_a_sample = 64
    measures: ClassVar[tuple[Measure, ...]] = (
        Measure("auc", "AUC"),
        Measure("group_auc", "AUC by user"),
        Measure("log_loss", "log loss", "probabilities"),
        Measure("normalised_entropy", "normalised entropy", "probabilities"),
        Measure("calibration_error", "calibration error", "probabilities"),
        Measure("calibration", "predicted over observed", "probabilities"),
    )

    dataset: LabelledDataset

    @classmethod
    def prepare(cls, ingested: Path, folder: Path, settings: Settings) -> list[str]:
        """Features, histories, split; see :class:`Task`."""
        if not isinstance(settings, LabelledPrepareSettings):
            raise SettingsError("`prepare` is not for rows with a label", "Set `prepare.kind: labelled`.")
        return prepare_labelled(ingested, folder, settings)

    @classmethod
    def read(cls, folder: Path) -> LabelledDataset:
        """See :func:`components.data.labelled.read_labelled_dataset`."""
        return read_labelled_dataset(folder)

    def __init__(self, dataset: LabelledDataset, max_length: int = 0) -> None:
        self.dataset = dataset
        self._layout = dataset.record["features"]
        window = self._layout["history"]["window"] if self._layout["history"] else 0
        self.max_length = min(max_length, window)
        self._label = dataset.label.astype(np.int64)
        rows, self._begin, self._end = dataset.earlier
        self._past = dataset.categories[rows, self._layout["target"]].astype(np.int64)
        self._past_label = self._label[rows]

    def reading(self, max_length: int) -> Task:
        """The same over the same data, for networks that read ``max_length`` events."""
        return self if max_length == self.max_length else Click(self.dataset, max_length)

    @property
    def sizes(self) -> dict[str, Any]:
        """The layout of the features."""
        return {"features": self._layout}

    @property
    def outcomes(self) -> int:
        """Yes."""
        return 1

    @property
    def outcome_ids(self) -> list[str]:
        """What the one outcome is called."""
        return ["yes"]

    @property
    def outcome_counts(self) -> np.ndarray:
        """``(1,)`` training rows with a yes."""
        return np.array([int(self._label[self.dataset.learned].sum())])

    @property
    def log_odds_shift(self) -> float:
        """Of training rows with a no, some are left out: the odds of a yes are that much greater among the others."""
        return float(-np.log(self.dataset.record["settings"]["negatives_kept"]))

    def rows_of(self, points: np.ndarray) -> np.ndarray:
        """Points are numbered in the order of the rows, over those that are left out."""
        return self.dataset.learned[points]

    def targets_of(self, rows: np.ndarray) -> np.ndarray:
        """1 where something came of it."""
        return self._label[rows]

    def drawn_with(self, rows: np.ndarray) -> np.ndarray:
        """The user."""
        return self.dataset.user[rows].astype(np.int64)

    def inputs_of(self, feed: Feed) -> tuple[torch.Tensor, ...]:
        """The same values in the same order."""
        return tuple(torch.from_numpy(values) for values in feed.values())

    def feed_of(self, rows: np.ndarray) -> Feed:
        """The features, and the history that each row had."""
        feed: Feed = {"categories": self.dataset.categories[rows].astype(np.int64)}
        if self._layout["numbers"]:
            feed["numbers"] = self.dataset.numbers[rows]
        if self.max_length:
            places = self._end[rows][:, None] - 1 - np.arange(self.max_length)
            read = places >= self._begin[rows][:, None]
            places = np.where(read, places, 0)
            feed["history"] = self._past[places] * read
            feed["happened"] = self._past_label[places] * read
        return feed

    def validation_metric(self) -> AreaUnderCurve:
        """Area under the curve."""
        return AreaUnderCurve()

    def judgement(self, scores: np.ndarray, targets: np.ndarray, drawn: np.ndarray) -> Judgement:
        """The probabilities of all rows against what came of them."""
        figures = probability_figures(scores, targets, drawn)
        return Judgement(drawn, targets, influences(scores[:, 0], targets), figures)

    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """How much an item is liked by all, and a linear model of every feature's values."""
        return {
            "popularity": Baseline("Share of yes of the item", item_rate_scorer(self.dataset)),
            "logistic": Baseline("One-hot logistic regression", one_hot_scorer(self.dataset)),
        }

    def strata(self, judgement: Judgement) -> Strata:
        """By how often the item was in training."""
        found = popularity_strata(self.dataset.item[self.dataset.rows("test")], self.dataset.train_counts)
        return found._replace(
            title="Training rows of the item",
            caption="What each group's rows add to the AUC: above 1 in a group whose rows are told best.",
            axis="training rows of the item",
        )

    def beyond(self, earlier: LabelledDataset | None) -> HeldOutRows:
        """Test rows; see :func:`components.tasks.held_out_rows.held_out_rows`."""
        return held_out_rows(self.dataset, earlier)

    def population(self) -> Population:
        """All rows; what is measured of a row beside user and item is whether something came of it."""
        dataset = self.dataset
        return Population(
            items=dataset.catalogue["id"],
            item_events=np.bincount(dataset.item, minlength=dataset.items),
            users=user_ids(dataset),
            user_events=np.bincount(dataset.user, minlength=dataset.users),
            values=self._label[:, None],
        )

    def learned_until(self, split: Split) -> int:
        """See :class:`Task`."""
        return int(self.dataset.timestamp[self.dataset.split < SPLITS.index(split)].max())

    def wording(self) -> Wording:
        """For people."""
        return Wording(
            title="Behaviour prediction",
            tags=("tabular-classification", "recommendation"),
            summary="A model that tells how likely something comes of showing an item to a user",
            use='recstill predict PACKAGE --request \'{"item": "50", "history": ["181", "174"]}\'',
            tested="rows of users' later days, each with the history that it had",
            users="users",
            requests="test rows",
            limits="It has learned what came of what was shown: of what never is shown to somebody, it can be wrong.",
        )

    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """The items with what is known of them, and the vocabularies of the features."""
        known = [f"{FEATURE}{name}" for name in self._layout["of_item"]]
        items = self.dataset.catalogue.select("item", "id", "title", "train_events", *known)
        items.write_parquet(folder / "vocabulary.parquet")
        private = pl.col("feature").is_in(self._layout["privileged"])
        self.dataset.vocabularies.filter(~private).write_parquet(folder / VALUES_FILE)
        return {
            "meaning": {
                "categories": "rows of the table of embeddings, by the ranges in `features`; 0 is nothing, or of a "
                "privileged feature",
                "numbers": "as they are; NaN where one is missing",
                "history": "rows of the items before, newest first, then 0",
                "happened": "1 where something came of it",
                "scores": "log of the odds of a yes",
            },
            "loss": self.loss,
            "features": self._layout,
        }

    def golden_requests(self, count: int) -> list[Mapping[str, Any]]:
        """Rows of items that were drawn, with made-up histories: nobody's."""
        random = np.random.default_rng(0)
        items, counts = self.dataset.catalogue, self.dataset.train_counts
        chance = counts / counts.sum()
        features = [name for name in Features(self._layout, self.dataset.vocabularies).names if name != USER]
        requests: list[Mapping[str, Any]] = []
        ids = items["id"].to_list()
        for _ in range(count):
            drawn = random.choice(len(ids), size=min(6, len(ids)), p=chance)
            row: dict[str, Any] = {"item": ids[drawn[0]]}
            for name in features:
                row |= self._drawn(name, random)
            if self._layout["history"]:
                yes = 1 if self._layout["history"]["events"] == "positive" else random.integers(2, size=len(drawn))
                labels = np.broadcast_to(yes, len(drawn)).tolist()
                row["history"] = [
                    {"item": ids[place], "label": int(label)}
                    for place, label in zip(drawn[1:], labels[1:], strict=True)
                ]
            requests.append(row)
        return requests

    def _drawn(self, name: str, random: np.random.Generator) -> dict[str, Any]:
        """A value of a feature that is no item's and no user's own."""
        if name in ("item", *self._layout["of_item"]):
            return {}
        if name in self._layout["numbers"]:
            number = self._layout["numbers"][name]
            return {name: round(float(random.normal(number["mean"], number["scale"])), 2)}
        values = self.dataset.vocabularies.filter(pl.col("feature") == name)["value"].to_list()
        return {name: values[random.integers(len(values))]} if values else {}
