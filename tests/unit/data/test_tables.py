"""Anyone's own table is read whatever its form, and a wrong mapping is explained."""

import gzip
from pathlib import Path

import polars as pl
import pytest

from components.data import tables
from components.data.tables import Table
from components.errors import DataError
from components.settings.source import ColumnMapping, TableSource

EVENTS = pl.DataFrame({"user": ["a", "a", "b"], "item": ["1", "2", "1"], "timestamp": ["10", "20", "30"]})


def opened(root: Path, path: str, **columns: str) -> Table:
    return Table(TableSource(kind="table", path=path, columns=ColumnMapping(**columns)), root)  # type: ignore[arg-type]


def read(root: Path, path: str, **columns: str) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in opened(root, path, **columns).batches()])


def refusal(root: Path, path: str, **columns: str) -> str:
    with pytest.raises(DataError) as caught:
        read(root, path, **columns)
    assert caught.value.remedy
    return str(caught.value)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("ending", [".csv", ".csv.gz"])
def test_csv_is_read_under_any_usual_separator_packed_or_not(tmp_path: Path, separator: str, ending: str) -> None:
    content = EVENTS.write_csv(separator=separator).encode()
    (tmp_path / f"events{ending}").write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert read(tmp_path, f"events{ending}").equals(EVENTS)


def test_tsv_is_separated_by_tabs_even_if_its_header_has_more_commas(tmp_path: Path) -> None:
    (tmp_path / "events.tsv").write_text("user\titem\ttimestamp\ta,b,c,d,e\nu\ti\t5\tx\n")
    assert read(tmp_path, "events.tsv").rows() == [("u", "i", "5")]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    typed = EVENTS.cast({"item": pl.Int32, "timestamp": pl.Int64})
    typed.write_parquet(tmp_path / "events.parquet")
    assert read(tmp_path, "events.parquet").equals(typed)


def test_columns_are_found_by_the_mapping(tmp_path: Path) -> None:
    EVENTS.rename({"user": "who", "item": "what", "timestamp": "when"}).with_columns(other=1).write_csv(
        tmp_path / "e.csv"
    )
    assert read(tmp_path, "e.csv", user="who", item="what", timestamp="when").equals(EVENTS)


def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_bytes(b"\xef\xbb\xbf" + EVENTS.write_csv(line_terminator="\r\n").encode())
    assert read(tmp_path, "e.csv").equals(EVENTS)


def test_a_folder_is_read_in_the_order_of_its_names_and_strangers_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    (folder / "day=2").mkdir(parents=True)
    EVENTS[1:2].write_csv(folder / "b.csv")
    EVENTS[:1].cast({"timestamp": pl.Int64}).write_parquet(folder / "a.parquet")
    EVENTS[2:].write_csv(folder / "day=2" / "part.csv")
    for stranger in ("_SUCCESS", ".hidden.csv", "_draft.csv", "README.md"):
        (folder / stranger).write_text("not a table")
    source = opened(tmp_path, "log")
    batches = list(source.batches())
    assert [batch.rows.cast(pl.String).rows() for batch in batches] == [[row] for row in EVENTS.rows()]
    assert [file.name for file in source.files()] == ["a.parquet", "b.csv", "day=2/part.csv"]
    assert all(len(file.sha256) == 64 and file.bytes for file in source.files())


def test_rows_are_numbered_through_the_batches_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "BATCH_ROWS", 1)
    EVENTS.write_csv(tmp_path / "e.csv")
    assert [batch.first for batch in opened(tmp_path, "e.csv").batches()] == [1, 2, 3]


def test_the_first_title_of_an_item_counts(tmp_path: Path) -> None:
    titled = EVENTS.with_columns(item=pl.Series([1.0, 2.0, 1.0]), name=pl.Series(["One", None, "Uno"]))
    titled.write_parquet(tmp_path / "e.parquet")
    source = opened(tmp_path, "e.parquet", title="name")
    list(source.batches())
    titles = source.titles()
    assert titles is not None and titles.rows() == [("1", "One")]


def test_without_a_column_of_titles_there_are_none(tmp_path: Path) -> None:
    EVENTS.write_csv(tmp_path / "e.csv")
    assert opened(tmp_path, "e.csv").titles() is None


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_mapping_that_misses_names_the_column_the_file_and_the_nearest(tmp_path: Path, ending: str) -> None:
    table = EVENTS.rename({"user": "user_id"})
    if ending == "csv":
        table.write_csv(tmp_path / "e.csv")
    else:
        table.write_parquet(tmp_path / "e.parquet")
    message = refusal(tmp_path, f"e.{ending}", user="userid")
    assert f"e.{ending} has no column 'userid', which source.columns.user names" in message
    assert "nearest known one is 'user_id'" in message
    assert "its columns: user_id, item, timestamp" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("e.parquet", b"PAR1 but not really", ["e.parquet cannot be read"]),
        ("e.csv.gz", gzip.compress(b"user,item,timestamp\n" * 99, mtime=0)[:30], ["e.csv.gz cannot be read"]),
        ("e.csv.gz", b"user,item,timestamp\n", ["gzip"]),
        ("e.csv", b"", ["e.csv cannot be read", "empty"]),
        ("e.csv", b"user,item,timestamp\n1,2,3,4\n", ["e.csv cannot be read", "more fields"]),
        ("e.csv", "user,item,timestamp\n\xe9,2,3\n".encode("latin-1"), ["utf-8"]),
        ("e.xlsx", b"PK", ["e.xlsx is neither Parquet nor CSV", ".parquet"]),
    ],
)
def test_a_damaged_or_foreign_file_is_named(tmp_path: Path, name: str, content: bytes, words: list[str]) -> None:
    (tmp_path / name).write_bytes(content)
    message = refusal(tmp_path, name)
    assert all(word in message for word in words), message


def test_a_parquet_file_that_was_cut_short_is_named(tmp_path: Path) -> None:
    EVENTS.write_parquet(tmp_path / "e.parquet")
    whole = (tmp_path / "e.parquet").read_bytes()
    (tmp_path / "e.parquet").write_bytes(whole[: len(whole) // 2])
    assert "e.parquet cannot be read" in refusal(tmp_path, "e.parquet")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    assert "nothing.csv is missing" in refusal(tmp_path, "nothing.csv")
    (tmp_path / "empty").mkdir()
    assert "empty holds no Parquet or CSV file" in refusal(tmp_path, "empty")
