"""How far the data have moved since the champion learned from them: who is there, what is popular, how much is known.

Population stability index: the symmetrised divergence of two histograms, as used for scorecards (Siddiqi, "Credit Risk
Scorecards", 2006, chapter 6); below 0.1 it is usually read as no shift, above 0.25 as a great one. Jensen-Shannon
divergence: Lin, "Divergence measures based on the Shannon entropy", 1991.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from components.errors import DataError
from components.tasks.beyond import Population

GROUPS = 10
# A share of nothing would make the index infinite; an empty group counts as this.
_LEAST_SHARE = 1e-4
_DIGITS = 6


@dataclass(frozen=True)
class Drift:
    """The champion's data beside the challenger's; shares and divergences from 0 to 1 unless said otherwise.

    Attributes:
        users_before, users_after, items_before, items_after, events_before, events_after: Counts.
        new_users, new_items: Share of the users and items of now that were not there before.
        gone_items: Share of the items of before that are not there any more.
        new_item_events: Share of the events of now that are of new items.
        total_variation: Between the distributions of events over items.
        jensen_shannon: Between the same, in bits.
        popularity_psi: Population stability index (from 0, unbounded) of the events over ten groups of items that
            were equally popular before; new items are counted elsewhere.
        history_psi: The same of the users over ten groups of histories that were equally frequent before.
        values_psi: The greatest of the same of each value of the samples, over ten groups of samples; 0 without values.
    """

    users_before: int
    users_after: int
    items_before: int
    items_after: int
    events_before: int
    events_after: int
    new_users: float
    new_items: float
    gone_items: float
    new_item_events: float
    total_variation: float
    jensen_shannon: float
    popularity_psi: float
    history_psi: float
    values_psi: float

    @property
    def psi(self) -> float:
        """The index that settings limit: that of popularity or of values, whichever is greater.

        Not that of histories, which get longer wherever a log goes on.
        """
        return max(self.popularity_psi, self.values_psi)

    def record(self) -> dict[str, Any]:
        """JSON-able, rounded: the same data give the same bytes."""
        return {**{name: _rounded(value) for name, value in asdict(self).items()}, "psi": _rounded(self.psi)}

    def lines(self) -> list[str]:
        """For people."""
        if not self.users_before + self.users_after:
            return [
                f"labels {self.items_before:,} -> {self.items_after:,} ({self.new_items:.1%} new, "
                f"{self.gone_items:.1%} gone), samples {self.events_before:,} -> {self.events_after:,}",
                f"labels: total variation {self.total_variation:.3f}, PSI {self.popularity_psi:.3f}; "
                f"values: PSI {self.values_psi:.3f} at most",
            ]
        return [
            f"users {self.users_before:,} -> {self.users_after:,} ({self.new_users:.1%} new), "
            f"items {self.items_before:,} -> {self.items_after:,} ({self.new_items:.1%} new, "
            f"{self.gone_items:.1%} gone), events {self.events_before:,} -> {self.events_after:,} "
            f"({self.new_item_events:.1%} of new items)",
            f"popularity: total variation {self.total_variation:.3f}, Jensen-Shannon {self.jensen_shannon:.3f} bits, "
            f"PSI {self.popularity_psi:.3f}; histories: PSI {self.history_psi:.3f}"
            + (f"; values: PSI {self.values_psi:.3f} at most" if self.values_psi else ""),
        ]


def drift_between(before: Population, after: Population) -> Drift:
    """Measure it.

    Args:
        before: The champion's data.
        after: The challenger's.

    Raises:
        DataError: Samples have another number of values.
    """
    joined = (
        pl.DataFrame({"id": before.items, "before": before.item_events})
        .join(pl.DataFrame({"id": after.items, "after": after.item_events}), on="id", how="full", coalesce=True)
        .with_columns(known=pl.col("before").is_not_null(), there=pl.col("after").is_not_null())
        .fill_null(0)
        # A join gives rows in any order, and sums of floats depend on it.
        .sort("before", "id")
    )
    old, new = joined["before"].to_numpy(), joined["after"].to_numpy()
    known = joined["known"].to_numpy()
    p, q = old / max(old.sum(), 1), new / max(new.sum(), 1)
    return Drift(
        users_before=len(before.users),
        users_after=len(after.users),
        items_before=len(before.items),
        items_after=len(after.items),
        events_before=int(before.item_events.sum()),
        events_after=int(after.item_events.sum()),
        new_users=int((~after.users.is_in(before.users.implode())).sum()) / max(len(after.users), 1),
        new_items=float((~known).sum() / max(len(after.items), 1)),
        gone_items=float((~joined["there"].to_numpy()).sum() / max(len(before.items), 1)),
        new_item_events=float(new[~known].sum() / max(new.sum(), 1)),
        total_variation=float(np.abs(p - q).sum() / 2),
        jensen_shannon=_jensen_shannon(p, q),
        popularity_psi=_popularity_psi(old[known], new[known]),
        history_psi=_deciles_psi(before.user_events, after.user_events),
        values_psi=_values_psi(before.values, after.values),
    )


def stability_index(before: np.ndarray, after: np.ndarray) -> float:
    """Population stability index of two histograms over the same groups, ``(groups,)`` counts; 0 when one is empty."""
    if not before.sum() or not after.sum():
        return 0.0
    p, q = (np.maximum(counts / counts.sum(), _LEAST_SHARE) for counts in (before, after))
    return float(((q - p) * np.log(q / p)).sum())


def _popularity_psi(before: np.ndarray, after: np.ndarray) -> float:
    """Over groups of items with a tenth of the earlier events each; ``before`` ascends."""
    total = before.sum()
    if not total:
        return 0.0
    middle = (np.cumsum(before) - before / 2) / total
    group = np.minimum((middle * GROUPS).astype(int), GROUPS - 1)
    return stability_index(
        np.bincount(group, weights=before, minlength=GROUPS), np.bincount(group, weights=after, minlength=GROUPS)
    )


def _values_psi(before: np.ndarray | None, after: np.ndarray | None) -> float:
    if before is None or after is None:
        return 0.0
    if before.shape[1] != after.shape[1]:
        raise DataError(
            f"samples have {after.shape[1]:,} values, and those of the live version {before.shape[1]:,}",
            "Give a scenario of other samples a name of its own.",
        )
    return max(_deciles_psi(old, new) for old, new in zip(before.T, after.T, strict=True))


def _deciles_psi(before: np.ndarray, after: np.ndarray) -> float:
    if not len(before) or not len(after):
        return 0.0
    # Equal values stay in one group, so that there may be fewer than ten.
    edges = np.unique(np.quantile(before, np.arange(1, GROUPS) / GROUPS))
    counts = [
        np.bincount(np.searchsorted(edges, lengths, side="left"), minlength=len(edges) + 1)
        for lengths in (before, after)
    ]
    return stability_index(*counts)


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    middle = (p + q) / 2

    def divergence(distribution: np.ndarray) -> float:
        some = distribution > 0
        return float((distribution[some] * np.log2(distribution[some] / middle[some])).sum())

    return max(0.0, (divergence(p) + divergence(q)) / 2)


def _rounded(value: float) -> float:
    return round(value, _DIGITS) if isinstance(value, float) else value
