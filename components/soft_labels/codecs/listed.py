"""What codecs share that store k outcomes a point by their ids, and one number beside them."""

from __future__ import annotations

from typing import Any, ClassVar

from components.soft_labels.codecs.base import HALF, Codec, Column
from components.soft_labels.codecs.ids import id_column


class Listed(Codec):
    """k outcomes of each point: their ids, the logs of their probabilities, and the log of one more number.

    Args:
        outcomes: K.
        k: How many are stored, all K when it is larger than that.
        hidden_dim: See :class:`Codec`.
    """

    beside: ClassVar[str]
    """Name of the one number's array."""

    def __init__(self, outcomes: int, k: int, hidden_dim: int = 0) -> None:
        super().__init__(outcomes, hidden_dim)
        self.k = min(k, outcomes)

    def _options(self) -> dict[str, Any]:
        return {"k": self.k}

    def _columns(self) -> dict[str, Column]:
        return {
            "ids": id_column(self.outcomes, self.k),
            "log_probs": Column(HALF, (self.k,)),
            self.beside: Column(HALF, ()),
        }
