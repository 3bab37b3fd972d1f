"""``scenarios.*.retraining``: when a scheduled retrain runs, and what a challenger has to be worth."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings.base import Settings


class DriftSettings(Settings):
    """How far the data may have moved since the champion's."""

    retrain: Literal["always", "when_moved"] = "always"
    """``when_moved``: a retrain goes on only when the data moved by more than a limit below."""
    moved_psi: float = Field(default=0.1, ge=0)
    """Population stability index of the popularity of items from which the data count as moved."""
    moved_new_item_share: float = Field(default=0.05, ge=0, le=1)
    """Share of items that the champion has never seen from which the data count as moved."""
    max_psi: float | None = Field(default=None, gt=0)
    """A retrain stops when the index is greater: the data are broken rather than new. None: no limit."""


class ChallengerGateSettings(Settings):
    """What a challenger has to be worth beside the champion, and its data beside any."""

    margin: float = Field(default=0.02, ge=0, lt=1)
    """Non-inferiority margin as a share of the champion's primary measure: the lower end of the 95 % interval of the
    difference (paired bootstrap over users) must lie above minus this."""
    min_targets: int = Field(default=100, ge=1)
    """Held-out events that neither was trained on; with fewer nothing is decided, and the gate is not passed."""
    min_events: int | None = Field(default=None, ge=1)
    """Events of the new data set, at least. None: not required."""
    max_rejected_share: float | None = Field(default=None, ge=0, le=1)
    """Share of rows that the schema check rejects, at most. None: ``source.max_rejected_share`` alone counts."""
    max_cold_item_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the held-out events whose item the challenger does not know, at most."""


class RetrainingSettings(Settings):
    """A scheduled retrain."""

    warm_start: bool = False
    """The teacher starts from the champion's teacher."""
    drift: DriftSettings = DriftSettings()
    """When to retrain."""
    gate: ChallengerGateSettings = ChallengerGateSettings()
    """When the challenger may replace the champion."""
