"""The part of an item's embedding that it has in common with other items: those of its features, added up.

A weighted sum of the rows of one small table is added to the item's own row wherever that is used, after Kula,
"Metadata Embeddings for User and Item Cold-start Recommendations" (2015). It depends on the weights alone, so what is
served holds one table of items, with the sums in it.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn


class ItemFeaturesRecord(BaseModel):
    """Sizes of the features of items."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int
    """Of the table of embeddings."""
    columns: int
    """Rows that an item has at most."""


class ItemFeatureSums(nn.Module):
    """Which rows each item has is kept with the weights, as the data say it; without them every sum is 0.

    Args:
        items: Size of the catalogue.
        dim: Model width.
        record: Sizes.
    """

    rows: torch.Tensor
    shares: torch.Tensor
    keys: torch.Tensor

    def __init__(self, items: int, dim: int, record: ItemFeaturesRecord) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(record.rows, dim))
        nn.init.normal_(self.weight, std=0.02)
        self.register_buffer("rows", torch.zeros(items, record.columns, dtype=torch.int32))
        self.register_buffer("shares", torch.zeros(items, record.columns))
        self.register_buffer("keys", torch.zeros(record.rows, dtype=torch.int64))

    def take(self, rows: np.ndarray, shares: np.ndarray, keys: np.ndarray) -> None:
        """Take over the features of a data set; see :class:`components.data.item_features.ItemFeatures`."""
        for own, given in ((self.rows, rows), (self.shares, shares), (self.keys, keys)):
            own.copy_(torch.tensor(given))

    def forward(self) -> torch.Tensor:
        """``(items, dim)``."""
        return F.embedding_bag(self.rows, self.weight, mode="sum", per_sample_weights=self.shares)
