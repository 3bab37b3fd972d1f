"""What all that comes after ingest knows of a task: its data, its batches, what is good, and how it is served.

Distillation, pruning, quantization, export, evaluation, packaging and the service are written against this and name no
task. A task is one subclass of :class:`Task` (and one of :class:`components.tasks.answering.Answering`), listed in
:mod:`components.tasks.building`; ``docs/tasks.md`` shows one being added.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np

from components.errors import SettingsError

if TYPE_CHECKING:
    from torchmetrics import Metric

    from components.settings.base import Settings
    from components.settings.evaluation import EvaluationSettings
    from components.tasks.batch import Batch, EvaluationBatch, Feed, Scorer
    from components.tasks.beyond import HeldOut, HeldOutOutcomes, Population

Split = Literal["train", "validation", "test"]
LossFamily = Literal["softmax", "bernoulli"]
"""``softmax``: one of K outcomes comes. ``bernoulli``: K is 1, and it comes or not."""


class Measure(NamedTuple):
    """A figure of quality, greater is better.

    Attributes:
        key: In metrics.json, e.g. ``ndcg10``.
        title: For people.
        group: Heads the columns of the report's table that belong together.
        percent: Shown as a percentage.
    """

    key: str
    title: str
    group: str = ""
    percent: bool = False


class Judgement(NamedTuple):
    """How good one contender's scores are on T held-out points, in an order that is the same for every contender.

    Attributes:
        users: ``(T,)`` int64, what the bootstrap draws: all points of a user together.
        targets: ``(T,)`` int64, what was observed.
        values: ``(T,)`` float64 with the primary measure as their mean. Where the measure is no mean of its points (the
            area under a curve), the influence of each point on it, so that a resampled mean is a resampled measure.
        figures: Every measure by its key.
    """

    users: np.ndarray
    targets: np.ndarray
    values: np.ndarray
    figures: dict[str, float]


class Strata(NamedTuple):
    """The held-out points in groups, to show where a contender is good.

    Attributes:
        title: Of the chart.
        caption: Below the title.
        axis: What the groups are of.
        bucket: ``(T,)`` int64, the group of each point, from 0.
        labels: Of each group.
    """

    title: str
    caption: str
    axis: str
    bucket: np.ndarray
    labels: tuple[str, ...]


class Baseline(NamedTuple):
    """What needs no training by gradient, to show what training is worth.

    Attributes:
        title: For people.
        scorer: Its scores.
    """

    title: str
    scorer: Scorer


class Wording(NamedTuple):
    """How report and model card speak of a task.

    Attributes:
        title: Of the task.
        tags: For the hub.
        summary: What the model does, a sentence's end: "A recommender that predicts ...".
        use: A command that asks a package.
        tested: How it is judged: "Full ranking of 1,682 items".
        users: What the bootstrap draws, in plural.
        requests: What is asked when latency is measured, in plural.
        limits: What it cannot do, whole sentences.
    """

    title: str
    tags: tuple[str, ...]
    summary: str
    use: str
    tested: str
    users: str
    requests: str
    limits: str


class Dataset(Protocol):
    """A prepared data set, as far as all tasks have one."""

    @property
    def record(self) -> dict[str, Any]:
        """The content of ``dataset.json``. Every task's has ``digest``, ``source_digest``, ``users``, ``items``,
        ``events``, ``points``, ``events_per_split``; 0 where there is no such thing."""

    @property
    def digest(self) -> str:
        """SHA-256 over the content."""


class Task(ABC):
    """Batches and judgements over one prepared data set, for networks that read ``max_length`` events at most.

    Attributes:
        dataset: What ``prepare`` wrote.
        max_length: Events of a history that a network sees; 0 where there is no history.
    """

    name: ClassVar[str]
    """As it stands in params.yaml."""
    loss: ClassVar[LossFamily]
    """What kind of distribution a network's logits are."""
    measures: ClassVar[tuple[Measure, ...]]
    """What the report shows; the first is primary: it stops trainings, decides what ships, and is what intervals are
    of."""
    best_of: ClassVar[int]
    """How many of the best outcomes an answer shows, at most: a quantized variant should keep them."""

    dataset: Dataset
    max_length: int

    @classmethod
    @abstractmethod
    def prepare(cls, ingested: Path, folder: Path, settings: Settings) -> list[str]:
        """From what ``ingest`` wrote to the prepared data set, whole or not at all.

        Args:
            ingested: Folder of ``events.parquet``, ``items.parquet`` and ``source.json``.
            folder: Where the data set goes.
            settings: The scenario's ``prepare``.

        Returns:
            What was made, as plain lines.

        Raises:
            DataError: Nothing can be learned from it.
            SettingsError: The settings are of another task.
        """

    @classmethod
    @abstractmethod
    def read(cls, folder: Path) -> Dataset:
        """A prepared data set, checked against its own digest.

        Raises:
            DataError: A file is missing.
            IntegrityError: The content is not what the digest says.
        """

    @abstractmethod
    def __init__(self, dataset: Any, max_length: int = 0) -> None: ...

    def reading(self, max_length: int) -> Task:
        """The same over the same data, for networks that read ``max_length`` events."""
        return self if max_length == self.max_length else type(self)(self.dataset, max_length)

    @property
    def primary(self) -> Measure:
        """The measure that decides."""
        return self.measures[0]

    @property
    def sizes(self) -> dict[str, Any]:
        """What a network has to know of its inputs beside its settings, e.g. ``{"features": 10}``."""
        return {}

    # What is learned.

    @property
    @abstractmethod
    def outcomes(self) -> int:
        """K."""

    @property
    @abstractmethod
    def outcome_ids(self) -> list[str]:
        """The source's name of each outcome, ``(K,)``; of the one outcome of a yes or no, what it is."""

    @property
    @abstractmethod
    def points(self) -> int:
        """P, the number of training points; their ids are 0 to P - 1."""

    @property
    @abstractmethod
    def outcome_counts(self) -> np.ndarray:
        """``(K,)`` int64, training points of each outcome."""

    @property
    def log_odds_shift(self) -> float:
        """By how much the log-odds of a yes are greater among training points than among all; 0 where none were left
        out. A network is to give the odds among all: the loss of what was observed adds this to its logits."""
        return 0.0

    @abstractmethod
    def training_batches(
        self, batch_size: int, *, seed: int, epoch: int, rank: int = 0, world: int = 1
    ) -> Sequence[Batch]:
        """One epoch: every training point exactly once; where points have weights, in proportion to them.

        Args:
            batch_size: Samples a step.
            seed: Together with ``epoch`` decides over the order, and over whatever else is drawn.
            epoch: From 0.
            rank: Which share of each step is wanted, when ``world`` devices divide it.
            world: How many devices divide each step.
        """

    @abstractmethod
    def scoring_batches(self, first: int, stop: int, batch_size: int) -> Iterator[Batch]:
        """The points ``first`` to ``stop - 1`` in ascending order, each with the context it has for ever."""

    @abstractmethod
    def calibration(self, count: int, seed: int) -> list[Feed]:
        """Feeds of ``count`` training points at most, for activation ranges and for checks of exported graphs."""

    @abstractmethod
    def inputs_of(self, feed: Feed) -> tuple[Any, ...]:
        """The tensors that a network's ``encode`` takes in the place of a feed."""

    # What is good.

    @abstractmethod
    def held_out(self, split: Split) -> int:
        """How many points of a split are judged."""

    @abstractmethod
    def evaluation_batches(self, split: Split, batch_size: int) -> Iterator[EvaluationBatch]:
        """The held-out points of a split in a fixed order."""

    @abstractmethod
    def validation_metric(self) -> Metric:
        """The primary measure as a metric with ``update(scores, batch)``, for the end of an epoch."""

    @abstractmethod
    def judge(self, scorer: Scorer, batches: Iterator[EvaluationBatch]) -> Judgement:
        """Judge a contender in one pass; at most one batch of scores is in memory.

        Raises:
            DataError: A score is not a number.
        """

    @abstractmethod
    def baselines(self, settings: EvaluationSettings) -> dict[str, Baseline]:
        """Contenders by name, the weakest first: a first version has to be better than that one."""

    @abstractmethod
    def strata(self, judgement: Judgement) -> Strata:
        """The judged points in groups."""

    # How it is trained again.

    def beyond(self, earlier: Any) -> HeldOut:
        """The test points that a model of earlier data has not learned from.

        Args:
            earlier: Its prepared data set; None where there is none.

        Raises:
            SettingsError: The task does not say how two models of it are compared.
        """
        raise self._not_retrained()

    def population(self) -> Population:
        """What drift is measured on.

        Raises:
            SettingsError: The task does not say.
        """
        raise self._not_retrained()

    # How it answers together with another.

    def learned_until(self, split: Split) -> int:
        """Time of the newest point of the splits before this one, in microseconds since 1970.

        Raises:
            SettingsError: Its points have no time.
        """
        raise self._alone()

    def asked(self, split: Split, after: int) -> HeldOutOutcomes:
        """The held-out points of a split that are later than an instant, to be asked of packages.

        Args:
            split: ``validation`` or ``test``.
            after: Microseconds since 1970.

        Raises:
            SettingsError: Its answers are no lists of outcomes.
        """
        raise self._alone()

    def _alone(self) -> SettingsError:
        return SettingsError(
            f"a model of the task {self.name!r} cannot take this part in two stages",
            "Correct two_stage in params.yaml; docs/feed.md says what either part has to be.",
        )

    def _not_retrained(self) -> SettingsError:
        return SettingsError(
            f"nothing says how two models of the task {self.name!r} are compared",
            "Train it by `recstill run`; docs/tasks.md says what a task has to give to be retrained.",
        )

    # How it is served.

    @abstractmethod
    def wording(self) -> Wording:
        """How to speak of it."""

    @abstractmethod
    def write_package_files(self, folder: Path) -> dict[str, Any]:
        """Write ``vocabulary.parquet``, and whatever else an answer needs, into a package.

        Returns:
            What its ``signature.json`` says beside the names and shapes of the graph: at least ``meaning``.
        """

    @abstractmethod
    def golden_requests(self, count: int) -> list[Mapping[str, Any]]:
        """Requests as clients send them, of training points, that no user can be known by."""
