"""An earlier model and a new one on the same data: points that neither has learned from, and what the data are like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import polars as pl


class Population(NamedTuple):
    """What drift is measured on.

    Attributes:
        items: ``(K,)`` text, the source's ids of items or labels.
        item_events: ``(K,)`` int64, all events or samples of each.
        users: ``(U,)`` text, the source's ids; empty where nobody is known.
        user_events: ``(U,)`` int64, all events of each user.
        values: ``(N, D)`` floats, what the samples are like; None where events say it all.
    """

    items: pl.Series
    item_events: np.ndarray
    users: pl.Series
    user_events: np.ndarray
    values: np.ndarray | None = None


class HeldOut(ABC):
    """T held-out points that models are asked through their packages, as they are served.

    Attributes:
        users: ``(T,)`` int64, what the bootstrap draws together.
        dropped: Test points that were left out, since the earlier model has trained on them or was validated with them.
    """

    users: np.ndarray
    dropped: int

    @property
    def span(self) -> tuple[str, str] | None:
        """Times of the oldest and the newest point, ISO 8601; None where there is no time, or no point."""
        return None

    def for_package(self, signature: Mapping[str, Any]) -> HeldOut:
        """The same points, as a package with this ``signature.json`` can be asked about them."""
        return self

    @abstractmethod
    def requests(self) -> Iterator[Mapping[str, Any]]:
        """The JSON of a request, point by point."""

    @abstractmethod
    def values(self, answers: Iterable[Any]) -> np.ndarray:
        """``(T,)`` float64 with the primary measure as their mean, from the answers to :meth:`requests`."""

    @abstractmethod
    def unlearned(self, learned: Collection[str]) -> int:
        """How many points have an outcome that is not among those a model has learned from."""


class HeldOutOutcomes(HeldOut):
    """Held-out points whose answers are lists of outcomes, one of which was observed.

    Attributes:
        cutoff: Outcomes of an answer that count.
    """

    cutoff: ClassVar[int]

    @abstractmethod
    def places(self, answers: Iterable[Any]) -> np.ndarray:
        """``(T,)`` int64, the place of the observed outcome in each answer to :meth:`requests`, from 0; -1 where it is
        not there. Outcomes that count as known to the user take no place."""
