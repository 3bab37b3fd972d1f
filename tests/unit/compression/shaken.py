"""Small networks whose every weight matters: fresh biases and norms are 0 and 1, which would hide mistakes."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import onnx
import torch

from components.compression.export import export_onnx
from components.compression.groups import Group
from components.compression.surgery import kept_count
from components.data.item_features import ItemFeatures
from components.networks.building import new_network
from components.networks.contract import PredictionNetwork
from components.settings.network import CausalTransformerSettings
from components.settings.top_n_network import MatrixFactorizationSettings
from components.tasks.batch import ITEM_FEATURES, ITEM_SETS, Feed
from components.tasks.next_item import NextItem

ITEMS, LENGTH = 60, 12

SHAPES: dict[str, dict[str, Any]] = {
    "two blocks": {},
    "one block": {"blocks": 1},
    "untied": {"blocks": 1, "tied": False},
    "many narrow heads": {"heads": 8},
    "one head": {"heads": 1},
}


def item_features(items: int = ITEMS) -> ItemFeatures:
    """A category and a list of two or fewer of each item, and a number."""
    random = np.random.default_rng(0)
    several = random.random((items, 1)) < 0.5
    rows = np.hstack([random.integers(1, 5, (items, 1)), random.integers(5, 9, (items, 2)), np.full((items, 1), 9)])
    rows[:, 2:3] *= several
    shares = np.hstack(
        [np.ones((items, 1)), np.where(several, 0.5, 1.0), np.where(several, 0.5, 0.0), random.normal(size=(items, 1))]
    )
    return ItemFeatures(rows.astype(np.int32), shares.astype(np.float32), np.arange(10))


def shaken_network(items: int = ITEMS, seed: int = 0, described: bool = False, **changes: Any) -> PredictionNetwork:
    """With ``described`` one whose items have :func:`item_features`."""
    shape = {"dim": 16, "blocks": 2, "heads": 2, "ffn_dim": 24, "max_length": LENGTH, "dropout": 0.3, **changes}
    torch.manual_seed(seed)
    sizes = {ITEM_FEATURES: item_features(items)} if described else {}
    network = new_network(CausalTransformerSettings(**shape), items, sizes).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def factorization(items: int = ITEMS) -> PredictionNetwork:
    """A network without a linear layer."""
    torch.manual_seed(0)
    settings = MatrixFactorizationSettings(kind="matrix_factorization", dim=16, steps=4, max_length=LENGTH)
    return new_network(settings, items, {ITEM_SETS: True}).eval()


@cache
def exported_model(items: int = ITEMS, **changes: Any) -> onnx.ModelProto:
    """The exported form of :func:`shaken_network`, made once a test session. Read only."""
    return export_onnx(shaken_network(items, **changes))


def feed(
    batch: int, width: int, lengths: int | None = None, seed: int = 0, items: int = ITEMS
) -> dict[str, np.ndarray]:
    """Random histories; ``lengths`` None draws one for each row."""
    random = np.random.default_rng(seed)
    drawn = random.integers(1, width + 1, batch) if lengths is None else np.full(batch, lengths)
    return {"items": random.integers(0, items, (batch, width)), "length": drawn}


def inputs_of(given: Feed) -> tuple[torch.Tensor, ...]:
    """What the network takes in the place of a feed."""
    return NextItem.inputs_of(None, given)  # type: ignore[arg-type]


def counts_of(groups: Sequence[Group], ratios: Mapping[str, float]) -> dict[str, int]:
    """How many units of each group stay when these shares go, by the kind of unit."""
    return {group.name: kept_count(group.kind, group.units, ratios[group.kind]) for group in groups}
