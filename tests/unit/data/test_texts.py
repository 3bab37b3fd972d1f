"""Texts of any table: what is wrong with a row is told with its number; the published set is read from its archive."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from components.data.ingesting import Ingested
from components.data.ingesting_texts import ingest_texts
from components.data.text_sources import TextEntry, open_texts, published_texts
from components.data.tokenizing import read_tokenizer, tokens_of, trained_tokenizer, words_of
from components.errors import DataError, SettingsError
from components.settings.base import validated
from components.settings.text_prepare import TextPrepareSettings
from components.settings.text_source import PublishedTextSource, TextTableSource
from tests.unit.data.conftest import zipped

ENTRY = Path(__file__).parents[3] / "components" / "data" / "catalogue" / "r8.yaml"
GOOD = [("sport", f"the team won match {number}") for number in range(7)] + [("war", "peace"), ("财经", "今日股市上涨")]


def ingested(root: Path, name: str, **settings: Any) -> Ingested:
    source = TextTableSource(kind="text-table", path=name, **{"max_rejected_share": 1.0, **settings})
    return ingest_texts(open_texts(source, root), source)


def written(path: Path, rows: list[tuple[Any, ...]], columns: tuple[str, ...] = ("label", "text")) -> Path:
    pl.DataFrame(rows, schema=list(columns), orient="row").write_csv(path)
    return path


def reasons(found: Ingested) -> dict[int, str]:
    return dict(found.rejected.select("row", "reason").iter_rows())


def test_what_is_wrong_with_a_text_is_told_with_its_row(tmp_path: Path) -> None:
    bad = [
        ("sport", ""),
        ("sport", " \u200b\t"),
        ("", "no label"),
        (None, "no label either"),
        ("sport", GOOD[0][1] + " "),
        ("a\nb", "label of two lines"),
        ("x" * 201, "long label"),
        ("sport", "y" * 51),
    ]
    written(tmp_path / "texts.csv", [*GOOD, *bad])
    found = ingested(tmp_path, "texts.csv", max_characters=50)
    assert reasons(found) == {
        10: "text is empty",
        11: "text is empty",
        12: "label is missing",
        13: "label is missing",
        14: "the same text again",
        15: "label holds a control character",
        16: "label is longer than 200 characters",
        17: "text is too long",
    }
    assert found.events["label"].unique().sort().to_list() == ["sport", "war", "财经"]
    with pytest.raises(DataError, match=r"(?s)8 of 17 rows.*label is missing, e.g. texts.csv, row 12"):
        ingested(tmp_path, "texts.csv", max_characters=50, max_rejected_share=0.01)


def test_another_encoding_is_read_or_told(tmp_path: Path) -> None:
    content = "label,text\n" + "".join(f"{label},{text}\n" for label, text in GOOD)
    (tmp_path / "texts.csv").write_bytes(content.encode("gb18030"))
    found = ingested(tmp_path, "texts.csv")
    assert reasons(found) == {9: "bytes are no characters of the encoding"}
    found = ingested(tmp_path, "texts.csv", encoding="gb18030")
    assert found.events["text"].to_list() == [text for _, text in GOOD] and not len(found.rejected)
    (tmp_path / "texts.csv").write_bytes(content.encode("utf-8-sig"))
    assert ingested(tmp_path, "texts.csv").events["label"][8] == "财经"
    (tmp_path / "texts.csv").write_bytes(content.encode("utf-16"))
    with pytest.raises(DataError, match=r"first line of texts.csv is no text in utf-8"):
        ingested(tmp_path, "texts.csv")
    with pytest.raises(SettingsError, match="no such encoding"):
        validated(TextTableSource, {"kind": "text-table", "path": "x", "encoding": "utf-9"}, "source")


def test_parquet_compressed_csv_and_folders_hold_the_same(tmp_path: Path) -> None:
    table = pl.DataFrame(GOOD, schema=["label", "text"], orient="row")
    table.write_parquet(tmp_path / "texts.parquet")
    (tmp_path / "texts.csv.gz").write_bytes(gzip.compress(table.write_csv(separator=";").encode()))
    (tmp_path / "folder").mkdir()
    table[:4].write_csv(tmp_path / "folder" / "a.csv")
    table[4:].write_csv(tmp_path / "folder" / "b.tsv", separator="\t")
    found = {ingested(tmp_path, name).record["digest"] for name in ("texts.parquet", "texts.csv.gz", "folder")}
    assert len(found) == 1


def test_a_column_says_what_is_the_test(tmp_path: Path) -> None:
    rows = [(*row, "test" if number % 3 == 0 else "train") for number, row in enumerate(GOOD)]
    rows += [("sport", GOOD[0][1], "train"), ("sport", GOOD[0][1], "test")]
    written(tmp_path / "texts.csv", rows, ("label", "text", "part"))
    found = ingested(tmp_path, "texts.csv", columns={"split": "part"})
    # Of a text in both, the training copy goes; the test stays whole.
    assert reasons(found) == {10: "the same text again"}
    assert found.events["is_test"].sum() == 4
    with pytest.raises(DataError, match=r"no row of texts.csv says 'test'"):
        ingested(tmp_path, "texts.csv", columns={"split": "label"})


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("sport", "a b"), ("sport", "c d")], ("label", "text"), "have the label 'sport'"),
        ([("sport", "a b")], ("label", "body"), "has no column 'text'"),
        ([], ("label", "text"), "has no texts"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, rows: list[tuple[str, str]], columns: tuple[str, str], message: str
) -> None:
    written(tmp_path / "texts.csv", rows, columns)
    with pytest.raises(DataError, match=message):
        ingested(tmp_path, "texts.csv")


def test_thepublished_texts_set_is_read_from_its_archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSTILL_DOWNLOADS", str(tmp_path))
    record = yaml.safe_load(ENTRY.read_text())
    (archive,) = record["archives"]
    head = "Category\tText\nd\tstring\nclass\t\n\n"
    content = zipped(
        {
            archive["train"]["member"]: (head + 'earn\tnet "profit\nacq\tbuys\nearn\tloss\n').encode(),
            archive["test"]["member"]: (head + "acq\tbuys\nacq\tsells\n").encode(),
        }
    )
    (tmp_path / archive["file"]).write_bytes(content)
    archive["train"]["rows"], archive["test"]["rows"] = 3, 2
    archive["sha256"] = hashlib.sha256(content).hexdigest()
    source = PublishedTextSource(kind="r8", path="components/data/catalogue/r8.yaml", max_rejected_share=1)
    found = ingest_texts(published_texts(TextEntry.model_validate(record)), source)
    assert found.events["text"].to_list() == ['net "profit', "loss", "buys", "sells"]
    assert found.events["is_test"].to_list() == [False, False, True, True]
    archive["test"]["rows"] = 3
    with pytest.raises(DataError, match="holds 2 texts, expected 3"):
        published_texts(TextEntry.model_validate(record))


def test_a_tokenizer_is_the_same_every_time_and_reads_chinese_and_english() -> None:
    settings = TextPrepareSettings(kind="texts", vocabulary=64, min_frequency=1)
    texts = ["股市 上涨 经济", "今日股市大涨, profit 5%", "Profit rises 10%"] * 3
    tokenizer = trained_tokenizer(texts, settings)
    assert tokenizer.to_str() == trained_tokenizer(texts, settings).to_str()
    assert words_of(tokenizer, "Profit: 股市!") == ["profit", ":", "股", "市", "!"]
    first, unknown, empty = tokens_of(tokenizer, ["PROFIT 股市 ☃☃", "☃", " \u0000 "], 8)
    names = [tokenizer.id_to_token(int(token)) for token in first]
    assert names == ["profit", "股", "市", "[UNK]"] and len(unknown) == 1 and not len(empty)
    assert (
        tokens_of(read_tokenizer(tokenizer.to_str().encode(), "x"), ["PROFIT 股市"], 8)[0].tolist()
        == first[:3].tolist()
    )
    with pytest.raises(DataError, match=r"is no tokenizer.json"):
        read_tokenizer(b"{}", "x")
