"""``scenarios.*.prepare``: from events to a data set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from components.settings.base import Settings
from components.settings.labelled_prepare import ITEM, USER, Feature


class PrepareSettings(Settings):
    """Filter, order and split of the events."""

    kind: Literal["events"] = "events"
    """Events of users and items."""
    min_user_events: int = Field(default=5, ge=3)
    """k-core: users with fewer events are dropped, again and again until nothing changes. Three is the least that
    leaves a training, a validation and a test event."""
    min_item_events: int = Field(default=1, ge=1)
    """k-core: items with fewer events are dropped, together with the users' floor."""
    split: Literal["leave_one_out", "temporal", "given"] = "leave_one_out"
    """``leave_one_out``: each user's last event is the test, the one before it the validation target.
    ``temporal``: the newest share of all events, by time, is the test, the share before it the validation.
    ``given``: that of a source which comes with a split (``citeulike``, ``split-table``)."""
    validation_share: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the events, by time, that a temporal split validates on."""
    test_share: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of the events, by time, that a temporal split tests on."""
    item_features: dict[str, Feature] = {}
    """By column of ``source.features``: what is known of an item beside which one it is. Where rows of an item differ,
    the newest counts. ``min_count`` counts items. A package is none the larger for it: its table holds the sums."""

    @model_validator(mode="after")
    def _leaves_training_events(self) -> PrepareSettings:
        if self.validation_share + self.test_share > 0.8:
            raise ValueError("validation_share and test_share together leave less than a fifth for training")
        if taken := sorted({ITEM, USER} & self.item_features.keys()):
            raise ValueError(f"item_features {', '.join(map(repr, taken))}: that is no feature of an item")
        return self
