"""Public data sets are read from their archive; copies of the same set give the same events."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from components.data import delimited
from components.data.ingesting import Ingested, ingest
from components.data.preparing import prepare
from components.data.published import CatalogueEntry, PublishedSet, read_entry
from components.data.sources import open_source
from components.errors import DataError, IntegrityError
from components.settings.prepare import PrepareSettings
from components.settings.source import PublishedSource
from tests.unit.data.conftest import zipped

CATALOGUE = Path(__file__).parents[3] / "components" / "data" / "catalogue"
NAMES = ("movielens-100k", "movielens-1m", "movielens-20m", "movielens-25m")
NOW = datetime(2026, 1, 1, tzinfo=UTC)

RATINGS = [("1", "31", "5", "1000000000"), ("1", "2", "3", "1000000000"), ("2", "31", "4", "978300055")]
TITLES = {"2": "Misérables, Les (1995)", "31": 'A "B" (1996)', "267": "unknown"}
DELIMITED = {
    "movielens-100k": ("ml-100k/u.data", "\t", "", "ml-100k/u.item", "|", ""),
    "movielens-1m": ("ml-1m/ratings.dat", "::", "", "ml-1m/movies.dat", "::", ""),
    "movielens-20m": (
        "ml-20m/ratings.csv",
        ",",
        "userId,movieId,rating,timestamp\n",
        "ml-20m/movies.csv",
        ",",
        "movieId,title,genres\n",
    ),
}


def settings_of(name: str) -> PublishedSource:
    return PublishedSource(kind=name, path=f"components/data/catalogue/{name}.yaml")  # type: ignore[arg-type]


def official_members(name: str) -> dict[str, bytes]:
    """Members of the form of the official archive."""
    ratings, separator, header, titles, title_separator, title_header = DELIMITED[name]

    def value(title: str) -> str:
        return '"' + title.replace('"', '""') + '"' if title_separator == "," else title

    rows = header + "".join(separator.join(row) + "\n" for row in RATINGS)
    lines = [title_separator.join([item, value(title), "Drama"]) for item, title in TITLES.items()]
    encoding = "utf-8" if title_separator == "," else "latin-1"
    return {ratings: rows.encode(), titles: (title_header + "\n".join(lines) + "\n").encode(encoding)}


def wheel_members() -> dict[str, bytes]:
    """Members of the form of the copy in the wheel, which splits the year off the titles."""
    folder = "recbole/dataset_example/ml-100k/ml-100k"
    rows = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + "".join(
        "\t".join(row) + "\n" for row in RATINGS
    )
    split = {item: title.rstrip(")").rsplit(" (", 1) for item, title in TITLES.items()}
    lines = [
        "\t".join([item, *(parts if len(parts) == 2 else ("unkonwn", "unkonwn")), "Drama"])
        for item, parts in split.items()
    ]
    head = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq"
    return {f"{folder}.inter": rows.encode(), f"{folder}.item": "\n".join([head, *lines, ""]).encode()}


def small_entry(name: str, number: int, content: bytes, **changes: Any) -> CatalogueEntry:
    """The real entry of a set, with the digest and rows of a small archive in place of the real one's."""
    record = yaml.safe_load((CATALOGUE / f"{name}.yaml").read_text())
    archive = record["archives"][number] | {"sha256": hashlib.sha256(content).hexdigest()} | changes
    return CatalogueEntry.model_validate(record | {"rows": len(RATINGS), "archives": [archive]})


def ingested(entry: CatalogueEntry) -> Ingested:
    return ingest(PublishedSet(entry), settings_of(entry.name), NOW)


def placed(downloads: Path, name: str, number: int, members: Mapping[str, bytes]) -> CatalogueEntry:
    """An entry whose archive was put into the folder of downloads by hand."""
    content = zipped(dict(members))
    entry = small_entry(name, number, content)
    downloads.mkdir(exist_ok=True)
    (downloads / entry.archives[0].file).write_bytes(content)
    return entry


@pytest.mark.parametrize("name", NAMES)
def test_every_entry_of_the_catalogue_is_valid_and_complete(name: str) -> None:
    entry = read_entry(CATALOGUE / f"{name}.yaml", CatalogueEntry)
    assert entry.name == name
    assert entry.licence and "Harper" in entry.citation
    first = entry.archives[0]
    assert first.kind == "address" and first.address.endswith(first.file)
    assert {"user", "item", "timestamp"} <= set(first.ratings.columns)
    assert first.titles.columns[:2] == ["id", "title"]


@pytest.mark.parametrize("name", DELIMITED)
@pytest.mark.parametrize("block", [10, 1 << 20])
def test_an_archive_is_read_member_by_member(
    downloads: Path, name: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", block)
    found = ingested(placed(downloads, name, 0, official_members(name)))
    assert found.events.rows() == [
        ("1", "31", 1_000_000_000_000_000, 0),
        ("1", "2", 1_000_000_000_000_000, 1),
        ("2", "31", 978_300_055_000_000, 2),
    ]
    assert dict(found.items.rows()) == {item: TITLES[item] for item in ("2", "31")}
    assert [path.suffix for path in downloads.iterdir()] == [".zip"], "nothing is unpacked"


def test_the_copy_in_the_wheel_gives_the_same_events_digest_and_titles(downloads: Path) -> None:
    official = ingested(placed(downloads, "movielens-100k", 0, official_members("movielens-100k")))
    wheel = ingested(placed(downloads, "movielens-100k", 1, wheel_members()))
    assert wheel.events.equals(official.events)
    assert wheel.record["digest"] == official.record["digest"]
    assert wheel.items.equals(official.items)
    assert wheel.record["files"] != official.record["files"]


def test_a_title_without_a_year_is_unknown_in_both_copies(downloads: Path) -> None:
    for number, members in ((0, official_members("movielens-100k")), (1, wheel_members())):
        titles = PublishedSet(placed(downloads, "movielens-100k", number, members)).titles()
        assert dict(titles.rows()) == TITLES


def test_the_record_names_the_archive_its_digest_and_the_licence(downloads: Path) -> None:
    entry = placed(downloads, "movielens-1m", 0, official_members("movielens-1m"))
    record = ingested(entry).record
    assert record["files"] == [
        {
            "name": "ml-1m.zip",
            "sha256": entry.archives[0].sha256,
            "bytes": (downloads / "ml-1m.zip").stat().st_size,
        }
    ]
    assert record["about"]["licence"] == entry.licence
    assert record["about"]["citation"] == entry.citation


def test_an_archive_is_fetched_from_its_address(server, downloads: Path) -> None:
    server.content = zipped(official_members("movielens-1m"))
    entry = small_entry("movielens-1m", 0, server.content, address=server.address)
    assert len(ingested(entry).events) == len(ingested(entry).events) == 3
    assert server.requests == 1


def test_a_damaged_kept_archive_is_fetched_again(server, downloads: Path) -> None:
    server.content = zipped(official_members("movielens-1m"))
    entry = small_entry("movielens-1m", 0, server.content, address=server.address)
    downloads.mkdir()
    (downloads / "ml-1m.zip").write_bytes(server.content[:-30])
    assert len(ingested(entry).events) == 3
    assert server.requests == 1


def test_an_archive_that_stays_wrong_is_refused(server, downloads: Path, waits: list[float]) -> None:
    server.content, server.plan = zipped(official_members("movielens-1m")), ["flip"]
    with pytest.raises(IntegrityError, match="expected SHA-256"):
        PublishedSet(small_entry("movielens-1m", 0, server.content, address=server.address))


def with_fallback(server, members: Mapping[str, bytes]) -> CatalogueEntry:
    """An entry whose address is the local server, and whose wheel is not to be had."""
    official = zipped(official_members("movielens-100k"))
    server.content = official
    wheel = zipped(dict(members))
    first = small_entry("movielens-100k", 0, official, address=server.address)
    second = small_entry("movielens-100k", 1, wheel, distribution="recstill-has-no-such-package")
    return first.model_copy(update={"archives": [*first.archives, *second.archives]})


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize("failure", [404, "flip"])
def test_where_the_address_fails_the_next_place_is_tried_and_all_failures_are_told(
    server, downloads: Path, monkeypatch: pytest.MonkeyPatch, failure, capsys
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    entry = with_fallback(server, wheel_members())
    server.plan = [failure]
    with pytest.raises(DataError) as caught:
        PublishedSet(entry)
    message = str(caught.value)
    assert server.address in message and "recstill-has-no-such-package==1.2.1" in message
    assert str(downloads / "ml-100k.zip") in message
    assert server.requests == 2, "given up sooner where there is another place"
    assert "trying another place" in capsys.readouterr().out


def test_a_copy_that_is_kept_is_used_before_anything_is_fetched(server, downloads: Path) -> None:
    entry = with_fallback(server, wheel_members())
    downloads.mkdir()
    (downloads / entry.archives[1].file).write_bytes(zipped(wheel_members()))
    assert len(ingested(entry).events) == 3
    assert server.requests == 0


def test_another_number_of_rows_than_published_is_refused(downloads: Path) -> None:
    entry = placed(downloads, "movielens-1m", 0, official_members("movielens-1m"))
    with pytest.raises(DataError, match="holds 3 rows of movielens-1m, expected 4"):
        ingested(entry.model_copy(update={"rows": 4}))


def test_an_archive_without_the_member_is_refused_by_name(downloads: Path) -> None:
    members = official_members("movielens-1m")
    members["ml-1m/renamed.dat"] = members.pop("ml-1m/ratings.dat")
    with pytest.raises(DataError, match=r"ml-1m/ratings\.dat cannot be read from .*ml-1m\.zip"):
        ingested(placed(downloads, "movielens-1m", 0, members))


@pytest.mark.parametrize(
    ("text", "word"),
    [("a: [", "YAML"), ("name: x", "archives"), ("name: x\nnmae: y", "nmae"), ("", "not a catalogue entry")],
)
def test_an_entry_that_is_wrong_is_refused(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "entry.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=word):
        read_entry(path, CatalogueEntry)


def test_an_entry_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        read_entry(tmp_path / "entry.yaml", CatalogueEntry)


@pytest.mark.network
def test_movielens_100k_is_complete_and_its_digests_are_known(tmp_path: Path) -> None:
    """From whichever place answers: the official archive and the wheel give the same events."""
    settings = settings_of("movielens-100k")
    root = CATALOGUE.parents[2]
    source = open_source(settings, root)
    assert isinstance(source, PublishedSet)
    found = ingest(source, settings, NOW)
    assert (found.record["rows"], found.record["users"], found.record["items"]) == (100_000, 943, 1_682)
    assert found.rejected.is_empty()
    assert found.events.row(0) == ("196", "242", 881_250_949_000_000, 0)
    assert dict(found.items.rows())["1"] == "Toy Story (1995)"
    assert found.items["title"].null_count() == 0
    assert found.record["digest"] == "7b8af838c003056bb19dc9590f5739bee5b748b722b15d5468e0b1cbaaae5e9b"
    prepared = prepare(found.events, found.items, PrepareSettings(), found.record["digest"])
    assert prepared.record["digest"] == "8b826085bd67f28a92991b9973034b5369addd0ab26a249b9b8b2976893371f0"
    assert prepared.record["points"] == 100_000 - 3 * 943
    tied = prepared.events.group_by("user").tail(2)["timestamp"].n_unique()
    assert tied < 2 * 943, "many users' last two events share a time, so the order of rows decides"


@pytest.mark.network
def test_the_ratings_in_the_wheel_are_those_of_the_official_file() -> None:
    """Byte for byte below the header: 06416e59... is the digest of u.data that others who have it record."""
    import zipfile

    entry = read_entry(CATALOGUE / "movielens-100k.yaml", CatalogueEntry)
    wheel = entry.model_copy(update={"archives": entry.archives[1:]})
    path = PublishedSet(wheel)._path
    with zipfile.ZipFile(path) as archive:
        body = archive.read(wheel.archives[0].ratings.member).split(b"\n", 1)[1]
    assert hashlib.sha256(body).hexdigest() == "06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490"
    assert pl.read_csv(body, separator="\t", has_header=False).height == 100_000
