"""``scenarios.*.prepare`` of rows with a label: what is made of their columns, and how they are split."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from components.settings.base import Settings

ITEM, USER, HISTORY = "item", "user", "history"


class _Categories(Settings):
    separator: str | None = Field(default=None, min_length=1)
    """Between the values where a row has several, such as ``|``. None: a row has one."""
    most: int = Field(default=8, ge=1)
    """Values of a row that are read where it has several; further ones are passed over."""


class VocabularyFeature(_Categories):
    """Values that are known by name; what is not known shares one row of the table of embeddings."""

    kind: Literal["vocabulary"]
    """How the values are told apart."""
    min_count: int = Field(default=2, ge=1)
    """Training rows that a value must be in to have a row of its own. The others teach what a new value is like."""


class HashedFeature(_Categories):
    """Values by the hash of their text: none is written into the package, and some share a row."""

    kind: Literal["hashed"]
    """How the values are told apart."""
    buckets: int = Field(ge=2)
    """Rows of the table of embeddings."""


class NumericFeature(Settings):
    """A number, normalised by mean and deviation of the training rows; a missing one is told to the network."""

    kind: Literal["numeric"]
    """How the values are told apart."""


Feature = Annotated[VocabularyFeature | HashedFeature | NumericFeature, Field(discriminator="kind")]


class HistorySettings(Settings):
    """What a user did before a row, newest first, each event with what came of it."""

    window: int = Field(default=50, ge=1)
    """Events that are kept at most, the newest ones; a network may read fewer."""
    events: Literal["all", "positive"] = "all"
    """``all``: yes and no alike. ``positive``: those that came to a yes, for logs in which almost nothing does."""


class LabelledPrepareSettings(Settings):
    """Features and split of rows with a label."""

    kind: Literal["labelled"]
    """Rows with a label."""
    features: dict[str, Feature] = {
        USER: VocabularyFeature(kind="vocabulary"),
        ITEM: VocabularyFeature(kind="vocabulary"),
    }
    """By column: ``user``, ``item``, and those of ``source.features``. A column that is not named is not learned
    from."""
    of_item: tuple[str, ...] = ()
    """Features that say something of the item. Whoever asks a package need not send them: it knows them of the items
    that it has seen."""
    privileged: tuple[str, ...] = ()
    """Features of categories for networks with ``privileged: true`` alone, which is the teacher: what a service does
    not know or no package may hold, such as ``user``. No package reads them or holds their values."""
    history: HistorySettings | None = HistorySettings()
    """What came before. None: nothing is read of it."""
    split: Literal["per_user", "temporal"] = "per_user"
    """``per_user``: the last rows of each user are the test, those before them the validation. ``temporal``: the newest
    rows of all, by time."""
    validation_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the rows, of each user or of all, that training is stopped by."""
    test_share: float = Field(default=0.1, gt=0, lt=0.5)
    """Share of the rows, of each user or of all, that no training sees."""
    negatives_kept: float = Field(default=1.0, gt=0, le=1)
    """Share of the training rows with a no that is learned from, for logs with very few yes; the others stay in
    histories. The loss takes the share into account, so that probabilities are those of the whole log."""
    seed: int = Field(default=0, ge=0)
    """Of the choice of negatives."""

    @model_validator(mode="after")
    def _is_possible(self) -> LabelledPrepareSettings:
        if self.validation_share + self.test_share > 0.8:
            raise ValueError("validation_share and test_share together leave less than a fifth for training")
        item = self.features.get(ITEM)
        if item is None or isinstance(item, NumericFeature) or item.separator:
            raise ValueError("features.item must be there, of one value: vocabulary or hashed, without separator")
        if HISTORY in self.features:
            raise ValueError("the column 'history' is made of the rows before; see prepare.history")
        if unknown := [name for name in self.of_item if name not in self.features or name in (USER, ITEM)]:
            raise ValueError(f"of_item names {', '.join(map(repr, unknown))}, which no feature of an item is")
        for name in self.privileged:
            feature = self.features.get(name)
            if feature is None or name == ITEM or name in self.of_item or isinstance(feature, NumericFeature):
                raise ValueError(f"privileged names {name!r}, which is no feature of categories that a row has itself")
        return self
