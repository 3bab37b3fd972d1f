"""Whoever is excluded is as if they had never been in the source."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from components.data import tables
from components.data.ingesting import Ingested, ingest
from components.data.sources import open_source
from components.data.subject_key import SubjectKey, subject_key_made
from components.errors import SettingsError
from components.settings.source import Exclusion, SyntheticSource, TableSource

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame(
    {
        "user": ["7", "8", "7", "9", None, "7", "8"],
        "item": ["a", "b", "b", "a", "a", None, "b"],
        "timestamp": [1, 2, 3, 4, 5, 6, 2],
    }
)


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SubjectKey:
    monkeypatch.delenv("RECSTILL_SUBJECT_KEY", raising=False)
    return subject_key_made(tmp_path / "keys")


def without(root: Path, name: str, key: SubjectKey | None, *people: str, other: SubjectKey | None = None) -> Ingested:
    marked = other or key
    exclusion = Exclusion(key=marked.id, subjects=tuple(map(marked.mark, people))) if marked and people else None
    settings = TableSource(kind="table", path=name, max_rejected_share=1, exclude=exclusion)
    return ingest(open_source(settings, root), settings, NOW, key)


@pytest.mark.parametrize("name", ["e.csv", "e.parquet", "e.csv.gz", "folder"])
@pytest.mark.parametrize("batch", [2, 1_000_000])
def test_no_row_is_left_and_none_is_told_as_rejected(
    tmp_path: Path, key: SubjectKey, name: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", batch)
    numbers = ROWS.with_columns(pl.col("user").cast(pl.Int64))
    if name == "folder":
        (tmp_path / name).mkdir()
        numbers[:3].write_parquet(tmp_path / name / "0.parquet")
        ROWS[3:].write_csv(tmp_path / name / "1.csv")
    elif name == "e.parquet":
        numbers.write_parquet(tmp_path / name)
    elif name == "e.csv":
        ROWS.write_csv(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(gzip.compress(ROWS.write_csv().encode()))
    whole, found = without(tmp_path, name, key), without(tmp_path, name, key, "7")
    assert found.events.equals(whole.events.filter(pl.col("user") != "7"))
    assert "7" not in found.rejected["user"].to_list()
    assert found.rejected.equals(whole.rejected.filter(pl.col("user").ne_missing("7")))
    assert (whole.record["rows"], found.record["rows"]) == (7, 4)
    assert found.record["digest"] != whole.record["digest"]


def test_the_data_are_those_of_a_source_that_never_had_them(tmp_path: Path, key: SubjectKey) -> None:
    ROWS.write_csv(tmp_path / "e.csv")
    ROWS.filter(pl.col("user").ne_missing("7")).write_csv(tmp_path / "never.csv")
    found, never = without(tmp_path, "e.csv", key, "7"), without(tmp_path, "never.csv", key)
    assert found.record["digest"] == never.record["digest"]
    assert found.events.drop("row").equals(never.events.drop("row"))


def test_the_generator_knows_exclusions_too(key: SubjectKey, tmp_path: Path) -> None:
    settings = {
        "kind": "synthetic",
        "path": "components/data/synthetic.py",
        "users": 20,
        "items": 24,
        "events_per_user": 8,
    }
    plain = SyntheticSource(**settings)  # type: ignore[arg-type]
    whole = ingest(open_source(plain, tmp_path), plain, NOW)
    person = whole.events["user"][0]
    exclusion = Exclusion(key=key.id, subjects=(key.mark(person),))
    changed = SyntheticSource(**settings, exclude=exclusion)  # type: ignore[arg-type]
    found = ingest(open_source(changed, tmp_path), changed, NOW, key)
    assert found.events.equals(whole.events.filter(pl.col("user") != person))


def test_a_missing_or_other_key_is_an_error_and_never_an_ingest_of_everybody(tmp_path: Path, key: SubjectKey) -> None:
    ROWS.write_csv(tmp_path / "e.csv")
    other = subject_key_made(tmp_path / "other")
    with pytest.raises(SettingsError, match="there is no key here"):
        without(tmp_path, "e.csv", None, "7", other=key)
    with pytest.raises(SettingsError, match="nobody would be left out"):
        without(tmp_path, "e.csv", key, "7", other=other)


def test_an_empty_list_needs_no_key(tmp_path: Path) -> None:
    ROWS.write_csv(tmp_path / "e.csv")
    settings = TableSource(kind="table", path="e.csv", max_rejected_share=1, exclude=Exclusion(key="0" * 16))
    assert len(ingest(open_source(settings, tmp_path), settings, NOW).events) == 4


def test_the_record_tells_neither_who_nor_how_many_rows(tmp_path: Path, key: SubjectKey) -> None:
    ROWS.write_csv(tmp_path / "e.csv")
    record = without(tmp_path, "e.csv", key, "7").record
    assert record["excluded_people"] == 1
    assert "excluded_people" not in without(tmp_path, "e.csv", key).record
