"""From settings to a network that reads the items of a user."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.errors import SettingsError
from components.networks.contract import PredictionNetwork
from components.networks.matrix_factorization import MatrixFactorization, MatrixFactorizationRecord
from components.networks.two_tower import TwoTower, TwoTowerRecord
from components.settings.top_n_network import MatrixFactorizationSettings, TopNNetworkSettings
from components.tasks.batch import ITEM_SETS


def new_top_n_network(settings: TopNNetworkSettings, outcomes: int, sizes: Mapping[str, Any]) -> PredictionNetwork:
    """A freshly initialised network.

    Args:
        settings: Its shape.
        outcomes: K, the size of the catalogue.
        sizes: Says that the task's inputs are the items of users.

    Raises:
        SettingsError: They are not.
    """
    if ITEM_SETS not in sizes:
        raise SettingsError(f"a {settings.kind} is for the task `top_n`", "Choose another `network.kind`.")
    if isinstance(settings, MatrixFactorizationSettings):
        shape = settings.model_dump(include={"dim", "steps", "max_length", "dropout"})
        return MatrixFactorization(MatrixFactorizationRecord(items=outcomes, prior_rows=settings.dim, **shape))
    shape = settings.model_dump(include={"dim", "hidden", "tied", "max_length", "dropout"})
    return TwoTower(TwoTowerRecord(items=outcomes, **shape))
