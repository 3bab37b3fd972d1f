"""The schema check on every batch: good rows become events, bad rows are put aside with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import dataframely as dy
import polars as pl

from components.data.ids import as_ids, is_given
from components.data.rows import RawRows
from components.data.times import microseconds
from components.errors import DataError

# What the schema's rules find, most basic first: a row is put aside for the first that applies.
_REASONS = {
    "user_is_an_id": "user of wrong type",
    "user|nullability": "null user",
    "item_is_an_id": "item of wrong type",
    "item|nullability": "null item",
    "timestamp_is_a_time": "time does not parse",
    "timestamp|nullability": "null time",
    "timestamp|min": "negative time",
    "timestamp|max": "future time",
}
DUPLICATE = "duplicate event"
"""Reason of a row whose user, item and time, and type where there are types, an earlier row has already."""
_CHECKED = {"user": pl.String, "item": pl.String, "timestamp": pl.Int64, "row": pl.Int64, "event": pl.String}
_QUARANTINE = {
    "file": pl.String,
    "row": pl.Int64,
    "user": pl.String,
    "item": pl.String,
    "timestamp": pl.String,
    "reason": pl.String,
}


class EventTable(dy.Schema):
    """Events as they leave ingest: in the order of the source, no two of them the same."""

    user = dy.String(nullable=False)
    item = dy.String(nullable=False)
    timestamp = dy.Int64(nullable=False, min=0)
    row = dy.Int64(nullable=False, min=0)
    event = dy.String(nullable=True)

    @dy.rule()
    def no_duplicate(cls) -> pl.Expr:  # noqa: N805
        """The first of several equal events is kept."""
        return pl.struct("user", "item", "timestamp", "event").is_first_distinct()


@dataclass
class Validation:
    """Checks batches one by one and keeps the account.

    Attributes:
        latest: Microseconds since 1970; later events are from the future.
        time_unit: Unit of times that are numbers.
        rows: Rows seen so far, without those that were left out.
    """

    latest: int
    time_unit: str = "auto"
    rows: int = 0
    _good: list[pl.DataFrame] = field(default_factory=list)
    _bad: list[pl.DataFrame] = field(default_factory=list)
    _starts: list[tuple[int, str, int]] = field(default_factory=list)
    _seen: int = 0

    def __post_init__(self) -> None:
        self._schema = _batch_schema(self.latest)

    def add(self, batch: RawRows, left_out: pl.Series | None = None) -> None:
        """Check one batch.

        Args:
            batch: Neighbouring rows.
            left_out: ``(E,)`` bool: rows that count as not there; the others keep their numbers. None: none.

        Raises:
            DataError: A column holds something that is never an id or a time, such as lists.
        """
        for name in ("user", "item", "timestamp"):
            _require_usable(batch, name)
        raw = batch.rows
        parsed = pl.DataFrame(
            {
                "user": as_ids(raw["user"]),
                "item": as_ids(raw["item"]),
                "timestamp": microseconds(raw["timestamp"], self.time_unit),
                "row": pl.int_range(self._seen, self._seen + len(raw), eager=True),
                "user_given": is_given(raw["user"]),
                "item_given": is_given(raw["item"]),
                "timestamp_given": is_given(raw["timestamp"]),
            }
        ).with_columns(raw["event"] if "event" in raw.columns else pl.lit(None, pl.String).alias("event"))
        if left_out is not None:
            parsed = parsed.filter(~left_out)
        self.rows += len(parsed)
        if "refused" in raw.columns:
            refused = raw["refused"].gather(parsed["row"] - self._seen)
            self._put_aside(batch, parsed["row"].filter(refused.is_not_null()), refused.drop_nulls())
            parsed = parsed.filter(refused.is_null())
        good, failures = self._schema.filter(parsed)
        self._good.append(good.select(*_CHECKED))
        if len(good) < len(parsed):
            details = failures.details()
            reason = pl.coalesce(
                pl.when(pl.col(rule) == "invalid").then(pl.lit(reason)) for rule, reason in _REASONS.items()
            )
            self._put_aside(batch, details["row"], details.select(reason.alias("reason"))["reason"])
        self._starts.append((self._seen, batch.file, batch.first))
        self._seen += len(raw)

    def _put_aside(self, batch: RawRows, rows: pl.Series, reasons: pl.Series) -> None:
        raw, places = batch.rows, rows - self._seen
        number = raw["line"].gather(places) if "line" in raw.columns else places + batch.first
        self._bad.append(
            pl.DataFrame(
                {
                    "file": pl.repeat(batch.file, len(places), eager=True),
                    "row": number.cast(pl.Int64),
                    **{name: raw[name].gather(places).cast(pl.String) for name in ("user", "item", "timestamp")},
                    "reason": reasons,
                }
            )
        )

    def finish(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """All good rows as an :class:`EventTable`, and the quarantine.

        Returns:
            Events (``user``, ``item``, ``timestamp``, ``row``: number in the whole source, from 0) in the order of the
            source, and the rejected rows (``file``, ``row``: number in its file, from 1, the values as text,
            ``reason``). Of a duplicate, the time is given in UTC.
        """
        empty = pl.DataFrame(schema=_CHECKED)
        events, failures = EventTable.filter(pl.concat([empty, *self._good]))
        copies = failures.invalid()
        if len(copies):
            starts = pl.DataFrame(self._starts, schema=["start", "file", "first"], orient="row")
            placed = copies.sort("row").join_asof(starts, left_on="row", right_on="start")
            self._bad.append(
                placed.select(
                    "file",
                    pl.col("row") - pl.col("start") + pl.col("first"),
                    "user",
                    "item",
                    pl.from_epoch("timestamp", time_unit="us").dt.strftime("%Y-%m-%dT%H:%M:%S%.fZ"),
                    reason=pl.lit(DUPLICATE),
                )
            )
        return events.drop("event"), pl.concat([pl.DataFrame(schema=_QUARANTINE), *self._bad])


def require_acceptable(
    rejected: pl.DataFrame, rows: int, most: float, shown: Sequence[str] = ("user", "item", "timestamp")
) -> None:
    """Refuse a source with too many bad rows.

    Args:
        rejected: The quarantine.
        rows: All rows of the source.
        most: The greatest share of rejected rows that is accepted.
        shown: Columns of the example of each reason.

    Raises:
        DataError: With the counts by reason, and an example of each.
    """
    if not rows or len(rejected) <= most * rows:
        return
    lines = [f"{len(rejected):,} of {rows:,} rows ({len(rejected) / rows:.2%}) are bad, {most:.2%} are accepted:"]
    for reason, count in counts_by_reason(rejected).items():
        example = rejected.filter(pl.col("reason") == reason).row(0, named=True)
        values = ", ".join(f"{name} {example[name]!r}" for name in shown)
        lines.append(f"    {count:,} x {reason}, e.g. {example['file']}, row {example['row']:,}: {values}")
    raise DataError(
        "\n".join(lines), "Mend the source or its column mapping, or raise source.max_rejected_share in params.yaml."
    )


def counts_by_reason(rejected: pl.DataFrame) -> dict[str, int]:
    """How many rows were rejected for which reason, by name."""
    return dict(rejected.group_by("reason").len().sort("reason").iter_rows())


def _batch_schema(latest: int) -> type[dy.Schema]:
    class Batch(dy.Schema):
        """One batch, parsed; null where a value is missing or does not parse."""

        user = dy.String(nullable=False)
        item = dy.String(nullable=False)
        timestamp = dy.Int64(nullable=False, min=0, max=latest)
        row = dy.Int64(nullable=False)
        event = dy.String(nullable=True)
        user_given = dy.Bool(nullable=False)
        item_given = dy.Bool(nullable=False)
        timestamp_given = dy.Bool(nullable=False)

        @dy.rule()
        def user_is_an_id(cls) -> pl.Expr:  # noqa: N805
            return ~pl.col("user_given") | pl.col("user").is_not_null()

        @dy.rule()
        def item_is_an_id(cls) -> pl.Expr:  # noqa: N805
            return ~pl.col("item_given") | pl.col("item").is_not_null()

        @dy.rule()
        def timestamp_is_a_time(cls) -> pl.Expr:  # noqa: N805
            return ~pl.col("timestamp_given") | pl.col("timestamp").is_not_null()

    return Batch


def _require_usable(batch: RawRows, name: str) -> None:
    kind = batch.rows.schema[name]
    plain = kind.is_numeric() or kind in (pl.String, pl.Null)
    if plain or (kind.is_temporal() and name == "timestamp" and kind not in (pl.Time, pl.Duration)):
        return
    if name != "timestamp" and kind in (pl.Categorical, pl.Enum):
        return
    expected = (
        "times are numbers, texts, dates or datetimes" if name == "timestamp" else "ids are texts or whole numbers"
    )
    raise DataError(
        f"{batch.file}: the column mapped to {name!r} has the type {kind}; {expected}",
        "Map another column in source.columns, or convert this one.",
    )
