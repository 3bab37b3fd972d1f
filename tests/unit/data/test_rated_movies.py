"""MovieLens with users and movies: the copies and layouts of a set give the same rows."""

import gzip
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import yaml

from components.data import rated_movies
from components.data.ingesting import Ingested, ingest
from components.data.published import CatalogueEntry, PublishedSet, read_entry
from components.data.rated_movies import RatedMovies
from components.errors import DataError, IntegrityError
from components.settings.labelled_source import RatedMoviesSource
from tests.unit.data.conftest import zipped

CATALOGUE = Path(__file__).parents[3] / "components" / "data" / "catalogue"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
COLUMNS = ["feature.gender", "feature.age", "feature.occupation", "feature.genres", "feature.year"]
RATINGS = [("1", "31", "5", "1000000000"), ("1", "2", "3", "1000000001"), ("2", "31", "4", "978300055")]
FLAGS = dict.fromkeys(range(19), "0")
ROWS = [
    ("1", "31", 1, "F", "24", "writer", "Action|Crime", "1996"),
    ("1", "2", 0, "F", "24", "writer", "Drama", "1995"),
    ("2", "31", 1, "M", "53", "other", "Action|Crime", "1996"),
]


def found_in(path: Path) -> Ingested:
    settings = RatedMoviesSource(kind="rated-movies", path=str(path))
    return ingest(RatedMovies(settings, path.parent), settings, NOW)


def rows_of(found: Ingested) -> list[tuple[object, ...]]:
    return found.events.sort("row").select("user", "item", "label", *COLUMNS).rows()


def movie(number: str, title: str, flags: tuple[int, ...]) -> str:
    return "|".join([number, title, "01-Jan-1995", "", "http://x", *(FLAGS | dict.fromkeys(flags, "1")).values()])


def official_100k() -> dict[str, bytes]:
    movies = [movie("31", "A (1996)", (1, 6)), movie("2", "B (1995)", (8,))]
    return {
        "ml-100k/u.data": "".join("\t".join(row) + "\n" for row in RATINGS).encode(),
        "ml-100k/u.item": "\n".join([*movies, ""]).encode(),
        "ml-100k/u.user": b"1|24|F|writer|85711\n2|53|M|other|94043\n",
    }


def wheel_100k() -> dict[str, bytes]:
    folder = "recbole/dataset_example/ml-100k/ml-100k"
    return {
        f"{folder}.inter": ("u\ti\tr\tt\n" + "".join("\t".join(row) + "\n" for row in RATINGS)).encode(),
        f"{folder}.item": b"i\tt\ty\tc\n31\tA\t1996\tAction Crime\n2\tB\t1995\tDrama\n",
        f"{folder}.user": b"u\ta\tg\to\tz\n1\t24\tF\twriter\t85711\n2\t53\tM\tother\t94043\n",
    }


def placed(downloads: Path, number: int, members: dict[str, bytes]) -> Path:
    """The entry of a small archive that was put into the folder of downloads by hand."""
    content = zipped(members)
    record = yaml.safe_load((CATALOGUE / "movielens-100k.yaml").read_text())
    archive = record["archives"][number] | {"sha256": hashlib.sha256(content).hexdigest()}
    downloads.mkdir(exist_ok=True)
    (downloads / archive["file"]).write_bytes(content)
    entry = downloads / "entry.yaml"
    entry.write_text(yaml.safe_dump(record | {"rows": len(RATINGS), "archives": [archive]}))
    return entry


@pytest.mark.parametrize(("number", "members"), [(0, official_100k()), (1, wheel_100k())])
def test_both_copies_of_100k_give_the_same_rows(downloads: Path, number: int, members: dict[str, bytes]) -> None:
    assert rows_of(found_in(placed(downloads, number, members))) == ROWS


@pytest.mark.parametrize(("number", "members"), [(0, official_100k()), (1, wheel_100k())])
def test_of_movies_alone_there_is_what_is_asked_for(downloads: Path, number: int, members: dict[str, bytes]) -> None:
    entry = read_entry(placed(downloads, number, members), CatalogueEntry)
    plain, asked = (next(PublishedSet(entry, features).batches()).rows for features in ((), ("genres", "year")))
    assert plain.columns == ["user", "item", "timestamp"]
    known = asked.select("user", "item", "feature.genres", "feature.year").rows()
    assert known == [(user, item, genres, year) for user, item, *_, genres, year in ROWS]


def official_1m(folder: Path) -> None:
    folder.mkdir()
    (folder / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in RATINGS))
    about(folder)


def about(folder: Path) -> None:
    (folder / "users.dat").write_text("1::F::24::writer::85711\n2::M::53::other::94043\n")
    (folder / "movies.dat").write_bytes("31::A (1996)::Action|Crime\n2::B (1995)::Drama\n".encode("latin-1"))


def research(folder: Path) -> None:
    """The same rows with ids of their own, and no times."""
    folder.mkdir()
    (folder / "ml-1m.txt.gz").write_bytes(gzip.compress(b"1 1\n1 2\n2 1\n"))
    (folder / "like_ge4.txt").write_text("1\n0\n1\n")
    (folder / "sas_to_original_users.txt").write_text("1 1\n2 2\n")
    (folder / "sas_to_original_items.txt").write_text("1 31\n2 2\n")
    about(folder)


def test_a_folder_of_either_layout_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official_1m(tmp_path / "official")
    research(tmp_path / "research")
    known = {"ml-1m.txt": hashlib.sha256(b"1 1\n1 2\n2 1\n").hexdigest()}
    monkeypatch.setattr(rated_movies, "RESEARCH_SHA256", known)
    official, other = found_in(tmp_path / "official"), found_in(tmp_path / "research")
    assert rows_of(official) == rows_of(other) == ROWS
    assert dict(official.items.rows()) == dict(other.items.rows()) == {"2": "B (1995)", "31": "A (1996)"}
    assert other.events["timestamp"].is_sorted() and isinstance(other.events, pl.DataFrame)


def test_a_file_that_is_not_the_known_one_is_refused(tmp_path: Path) -> None:
    research(tmp_path / "research")
    with pytest.raises(IntegrityError, match=r"ml-1m.txt.gz is not the file that is known"):
        found_in(tmp_path / "research")


def test_a_folder_that_lacks_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    official_1m(tmp_path / "official")
    (tmp_path / "official" / "users.dat").unlink()
    with pytest.raises(DataError, match=r"there is no users.dat"):
        found_in(tmp_path / "official")


def test_a_set_of_whose_users_nothing_is_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSTILL_DOWNLOADS", str(tmp_path))
    record = yaml.safe_load((CATALOGUE / "movielens-1m.yaml").read_text())
    content = zipped({"ml-1m/ratings.dat": b"1::2::3::4\n", "ml-1m/movies.dat": b"2::B::C\n", "ml-1m/users.dat": b""})
    archive = record["archives"][0] | {"sha256": hashlib.sha256(content).hexdigest()}
    del archive["people"]
    (tmp_path / archive["file"]).write_bytes(content)
    entry = tmp_path / "entry.yaml"
    entry.write_text(yaml.safe_dump(record | {"rows": 1, "archives": [archive]}))
    with pytest.raises(DataError, match="has no `people`"):
        found_in(entry)
