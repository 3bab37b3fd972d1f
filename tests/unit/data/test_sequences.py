"""Histories, one a line: what is read of them, and what is put aside with its line and the reason."""

import gzip
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from components.data.downloads import DOWNLOADS_VARIABLE
from components.data.ingesting import Ingested, ingest
from components.data.published import read_entry
from components.data.sequences import AGAIN, NO_ITEM, NO_PAIR, NOT_TEXT, SequenceEntry
from components.data.sources import open_source
from components.errors import DataError, IntegrityError, SettingsError
from components.settings.base import validated
from components.settings.scenario import Params
from components.settings.source import SequenceLayout, SequenceSource

CATALOGUE = Path(__file__).parents[3] / "components" / "data" / "catalogue"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GOOD = b"7 3 9 3\n2 9 5\n"
EVENTS = [("7", "3", 0), ("7", "9", 1), ("7", "3", 2), ("2", "9", 0), ("2", "5", 1)]


def found_in(path: Path, bad: float = 0.0, layout: SequenceLayout = "histories") -> Ingested:
    settings = SequenceSource(kind="sequences", path=str(path), layout=layout, max_rejected_share=bad)
    return ingest(open_source(settings, path.parent), settings, NOW)


def events_of(found: Ingested) -> list[tuple[str, str, int]]:
    rows = found.events.sort("row").select("user", "item", "timestamp").rows()
    return [(user, item, time // 1_000_000) for user, item, time in rows]


@pytest.mark.parametrize(
    "content",
    [GOOD, GOOD.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + GOOD, b"\n7\t3 9  3\n\n2 9 5"],
    ids=["plain", "windows", "byte order mark", "blank lines and tabs"],
)
def test_an_events_time_is_its_place_in_the_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(content))
    for name in ("a.txt", "a.txt.gz"):
        found = found_in(tmp_path / name)
        assert events_of(found) == EVENTS and not len(found.rejected)


@pytest.mark.parametrize(
    ("line", "reasons"),
    [
        (b"8", [NO_ITEM]),
        (b"7 1 2", [AGAIN, AGAIN]),
        (b"8 1 caf\xe9 2", [NOT_TEXT]),
        (b"\xff\xfe 1", [NOT_TEXT]),
    ],
    ids=["no item", "user again", "item in latin-1", "user of no text"],
)
def test_what_is_wrong_is_put_aside_with_its_line_and_the_reason(
    tmp_path: Path, line: bytes, reasons: list[str]
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(GOOD + line + b"\n4 1\n")
    found = found_in(path, bad=0.5)
    assert found.rejected.select("file", "row", "reason").rows() == [("a.txt", 3, reason) for reason in reasons]
    assert events_of(found)[:5] == EVENTS and events_of(found)[-1] == ("4", "1", 0)
    assert found.record["rows"] == len(found.events) + len(reasons)
    with pytest.raises(DataError, match=rf"{reasons[0]}, e\.g\. a\.txt, row 3"):
        found_in(path)


def test_the_places_of_the_other_items_stay_when_one_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"1 a \xff c\n2 a\n")
    assert events_of(found_in(tmp_path / "a.txt", bad=0.5)) == [("1", "a", 0), ("1", "c", 2), ("2", "a", 0)]


def test_pairs_are_the_same_histories_and_what_is_none_is_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"7 3\n7\t9\n\n2 9\n7 3\r\n2 5\n")
    assert sorted(events_of(found_in(path, layout="pairs"))) == sorted(EVENTS)
    path.write_bytes(path.read_bytes() + b"8\n8 1 2\n8 \xff\n8 6\n")
    found = found_in(path, bad=0.5, layout="pairs")
    reasons = [(7, NO_PAIR), (8, NO_PAIR), (9, NOT_TEXT)]
    assert found.rejected.select("row", "reason").rows() == reasons
    assert ("8", "6", 3) in events_of(found)


def test_a_file_that_is_missing_or_damaged_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.txt is missing, or no file"):
        found_in(tmp_path / "a.txt")
    whole = gzip.compress(GOOD * 500)
    for damaged in (whole[: len(whole) // 2], GOOD):
        (tmp_path / "a.txt.gz").write_bytes(damaged)
        with pytest.raises(DataError, match=r"a\.txt\.gz cannot be read"):
            found_in(tmp_path / "a.txt.gz")


def test_histories_without_times_are_neither_chosen_nor_split_by_time() -> None:
    document = yaml.safe_load((CATALOGUE.parents[2] / "params.yaml").read_text())
    validated(Params, document, "")
    document["scenarios"]["shop"]["prepare"] = {"split": "temporal"}
    with pytest.raises(SettingsError, match="cannot be split by time"):
        validated(Params, document, "")
    with pytest.raises(SettingsError, match="cannot be chosen by as_of or window"):
        validated(SequenceSource, {"kind": "sequences", "path": "a.txt", "window": "P30D"}, "scenarios.shop.source")


@pytest.mark.usefixtures("waits")
def test_a_published_file_is_taken_by_its_digest_and_number_of_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DOWNLOADS_VARIABLE, str(tmp_path))
    entry = yaml.safe_load((CATALOGUE / "amazon-beauty.yaml").read_text())
    for place in entry["files"]:
        place |= {"address": "http://127.0.0.1:9/none", "sha256": hashlib.sha256(GOOD).hexdigest()}
    (tmp_path / "amazon-beauty.txt").write_bytes(GOOD)
    path = tmp_path / "beauty.yaml"
    path.write_text(yaml.safe_dump(entry | {"rows": 5}))
    found = found_in(path)
    assert events_of(found) == EVENTS
    assert found.record["about"]["title"] == "Amazon Beauty, 5-core"
    path.write_text(yaml.safe_dump(entry | {"rows": 6}))
    with pytest.raises(DataError, match="holds 5 events of amazon-beauty, expected 6"):
        found_in(path)
    (tmp_path / "amazon-beauty.txt").write_bytes(GOOD + b"9 9\n")
    with pytest.raises((DataError, IntegrityError), match="cannot be fetched"):
        found_in(path)


@pytest.mark.parametrize(
    ("name", "rows", "layout"), [("amazon-beauty", 198_502, "histories"), ("movielens-1m-histories", 999_611, "pairs")]
)
def test_the_catalogue_entries_are_some(name: str, rows: int, layout: str) -> None:
    entry = read_entry(CATALOGUE / f"{name}.yaml", SequenceEntry)
    assert (entry.rows, entry.layout) == (rows, layout)
