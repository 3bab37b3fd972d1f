"""Where one person's rows lie among the files of a scenario's data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from components.errors import IntegrityError

_TABLES = (("events.parquet", "user"), ("rejected.parquet", "user"))
_SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PersonRows:
    """What was found of a person.

    Attributes:
        files: Names below ``artifacts/<scenario>`` of the files that hold rows of theirs.
        rows: How many rows of events they have.
        history: Item ids in the order of their events, as the prepared data set has them; empty when it has none.
        items: Item ids of their events, in the order of the source.
    """

    files: tuple[str, ...]
    rows: int
    history: tuple[str, ...]
    items: tuple[str, ...]


def person_rows(folder: Path, person: str) -> PersonRows:
    """Look for a person in ``artifacts/<scenario>``; files that are not there are passed over.

    Args:
        folder: With ``events.parquet``, ``rejected.parquet`` and ``dataset/``, or some of them.
        person: The source's id.

    Raises:
        IntegrityError: A file is damaged.
    """
    files: list[str] = []
    items: list[str] = []
    for name, column in _TABLES:
        own = _rows(folder / name, {column}, _is(column, person))
        if own is not None and len(own):
            files.append(name)
            if name == _TABLES[0][0] and "item" in own.columns:
                items = own["item"].cast(pl.String).to_list()
    history: list[str] = []
    users = _rows(folder / "dataset" / "users.parquet", {"user", "id"}, _is("id", person))
    if users is not None and len(users):
        files.append("dataset/users.parquet")
        history = _of_dataset(folder / "dataset", int(users["user"][0]), files)
    return PersonRows(tuple(files), len(items) or len(history), tuple(history), tuple(items))


def repeats(history: list[str], person: PersonRows) -> bool:
    """Whether a list of item ids is a stretch of a person's own history."""
    wanted = [str(item) for item in history]
    for own in (person.history, person.items):
        if any(list(own[start : start + len(wanted)]) == wanted for start in range(len(own) - len(wanted) + 1)):
            return bool(wanted)
    return False


def _of_dataset(folder: Path, index: int, files: list[str]) -> list[str]:
    catalogue = _rows(folder / "items.parquet", {"item", "id"}, pl.lit(True))
    ids = catalogue.sort("item")["id"].to_list() if catalogue is not None else []
    history: list[str] = []
    for split in _SPLITS:
        own = _rows(folder / f"{split}.parquet", {"user", "position"}, pl.col("user") == index)
        if own is not None and len(own):
            files.append(f"dataset/{split}.parquet")
            listed = own.sort("position")["item"].to_list()
            history += [str(ids[item]) if item < len(ids) else str(item) for item in listed]
    return history


def _is(column: str, person: str) -> pl.Expr:
    """A rejected row has its id as it stood in the source: ``12.0`` for ``12``."""
    text = pl.col(column).cast(pl.String)
    same = text == person
    if re.fullmatch(r"-?\d+", person):
        same |= text.str.replace(r"^(-?\d+)\.0+$", "$1") == person
    return same


def _rows(path: Path, needs: set[str], wanted: pl.Expr) -> pl.DataFrame | None:
    """Some rows of a table, which does not have to fit into memory; None when it is not there or has other columns."""
    if not path.is_file():
        return None
    try:
        table = pl.scan_parquet(path)
        if not needs <= set(table.collect_schema().names()):
            return None
        return table.filter(wanted).collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise IntegrityError(f"{path} is damaged: {error}", "Put it back from a copy, or run again.") from None
