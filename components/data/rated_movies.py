"""MovieLens as rows with a label: ratings, with what is known of users and movies.

Read from the archive that a catalogue entry names, or from a folder: of the official files (``ratings.dat``,
``users.dat``, ``movies.dat``), or of the layout that papers on sequential recommenders share, without ratings and times
(``ml-1m.txt``, ``like_ge4.txt``, the two official files beside them, and ``sas_to_original_*.txt`` for the ids).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, cast

import polars as pl

from components.data.delimited import Layout, blocks
from components.data.published import CatalogueEntry, PublishedSet, movie_title, read_entry, with_movies
from components.data.rows import FEATURE, RawRows, SourceFile, source_file
from components.errors import DataError, IntegrityError
from components.settings.labelled_source import RatedMoviesSource

USER_FEATURES = ("gender", "age", "occupation")
MOVIE_FEATURES = ("genres", "year")
_RATINGS = Layout(separator="::", columns=["user", "item", "label", "timestamp"])
_USERS = Layout(separator="::", columns=["user", *USER_FEATURES], encoding="latin-1")
_MOVIES = Layout(separator="::", columns=["id", "title", "genres"], encoding="latin-1")
_PAIRS = Layout(separator=" ", columns=["user", "item"])
_IDS = Layout(separator=" ", columns=["here", "there"])
_LABELS = Layout(separator=" ", columns=["label"])
RESEARCH_SHA256 = {
    "ml-1m.txt": "b725f3acb3986fe3130bffd1e77a74d182a1f51799567a236dbd60270f95b0a2",
}
"""Digests of the research layout's files, where they are known."""


class RatedMovies:
    """Ratings with features as a source.

    Args:
        settings: Where.
        root: What a relative path starts from.

    Raises:
        DataError: There is nothing to read there.
        IntegrityError: A file is not the one that is known.
    """

    time_unit = "seconds"

    def __init__(self, settings: RatedMoviesSource, root: Path) -> None:
        path = root / settings.path
        self._reader: _Archive | _Folder = _Folder(path) if path.is_dir() else _Archive(path)

    def about(self) -> dict[str, Any]:
        """Title, page, licence and citation."""
        return self._reader.about()

    def files(self) -> list[SourceFile]:
        """What was read."""
        return self._reader.files()

    def batches(self) -> Iterator[RawRows]:
        """The ratings, block by block, each with its features.

        Raises:
            DataError: A file cannot be read, or the set is not whole.
        """
        users, movies = self._reader.users(), self._reader.movies()
        names = {name: FEATURE + name for name in USER_FEATURES}
        for batch in self._reader.ratings():
            rows = batch.rows.join(users, on="user", how="left", maintain_order="left").rename(names)
            yield with_movies(batch._replace(rows=rows), movies, MOVIE_FEATURES)

    def titles(self) -> pl.DataFrame:
        """``id`` and ``title``, such as "Toy Story (1995)"."""
        return self._reader.movies().select("id", "title")


class _Archive:
    """A published archive."""

    def __init__(self, entry: Path) -> None:
        self._set = PublishedSet(read_entry(entry, CatalogueEntry))

    def about(self) -> dict[str, Any]:
        return self._set.about()

    def files(self) -> list[SourceFile]:
        return self._set.files()

    def ratings(self) -> Iterator[RawRows]:
        return self._set.batches(("user", "item", "timestamp", "rating"), {"rating": "label"})

    def users(self) -> pl.DataFrame:
        return self._set.people().select("user", *USER_FEATURES).unique("user", keep="first", maintain_order=True)

    def movies(self) -> pl.DataFrame:
        return self._set.movies()


class _Folder:
    """A folder of plain or gzipped files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._is_official = self._path("ratings.dat") is not None
        needed = ["ratings.dat"] if self._is_official else ["ml-1m.txt", "like_ge4.txt"]
        if not self._is_official:
            needed += ["sas_to_original_users.txt", "sas_to_original_items.txt"]
        missing = [name for name in [*needed, "users.dat", "movies.dat"] if self._path(name) is None]
        if missing:
            raise DataError(
                f"{folder} holds neither the official files of MovieLens nor the research layout: there is no "
                f"{', '.join(missing)}",
                "Point source.path in params.yaml to a folder with ratings.dat, users.dat and movies.dat.",
            )
        self._files = [self._path(name) for name in [*needed, "users.dat", "movies.dat"]]
        for name, expected in ({} if self._is_official else RESEARCH_SHA256).items():
            found = hashlib.sha256(self._content(name)).hexdigest()
            if found != expected:
                raise IntegrityError(
                    f"{self._path(name)} is not the file that is known: its text has the SHA-256 {found}, expected "
                    f"{expected}",
                    "Put it back from a copy of the set.",
                )

    def about(self) -> dict[str, Any]:
        return {
            "title": "MovieLens 1M",
            "home": "https://grouplens.org/datasets/movielens/1m/",
            "licence": "Research use; see the README of the set.",
            "citation": "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
            "ACM Transactions on Interactive Intelligent Systems 5, 4, Article 19. https://doi.org/10.1145/2827872",
        }

    def files(self) -> list[SourceFile]:
        return [source_file(path) for path in self._files if path is not None]

    def ratings(self) -> Iterator[RawRows]:
        if self._is_official:
            first = 1
            for table in self._blocks("ratings.dat", _RATINGS):
                yield RawRows("ratings.dat", first, table)
                first += len(table)
            return
        rows = self._table("ml-1m.txt", _PAIRS)
        labels = self._table("like_ge4.txt", _LABELS)
        if len(rows) != len(labels):
            raise DataError(
                f"ml-1m.txt has {len(rows):,} lines and like_ge4.txt {len(labels):,}: line k of the one is "
                "the label of line k of the other",
                "Put back the two files as they belong together.",
            )
        for column in ("user", "item"):
            ids = self._table(f"sas_to_original_{column}s.txt", _IDS).rename({"here": column})
            rows = rows.join(ids, on=column, how="left", maintain_order="left")
            rows = rows.with_columns(pl.col("there").alias(column)).drop("there")
        # Lines are in order of time within a user; their times are not known, their order is.
        liked = labels["label"].cast(pl.Float64, strict=False) * 4
        yield RawRows("ml-1m.txt", 1, rows.with_columns(label=liked, timestamp=pl.int_range(1, pl.len() + 1)))

    def users(self) -> pl.DataFrame:
        return self._table("users.dat", _USERS)

    def movies(self) -> pl.DataFrame:
        movies = self._table("movies.dat", _MOVIES).with_columns(title=movie_title())
        return movies.unique("id", keep="first", maintain_order=True)

    def _path(self, name: str) -> Path | None:
        return next((path for path in (self._folder / name, self._folder / f"{name}.gz") if path.is_file()), None)

    def _content(self, name: str) -> bytes:
        path = self._path(name)
        assert path is not None
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()

    def _table(self, name: str, layout: Layout) -> pl.DataFrame:
        return pl.concat(list(self._blocks(name, layout)))

    def _blocks(self, name: str, layout: Layout) -> Iterator[pl.DataFrame]:
        path = self._path(name)
        assert path is not None
        try:
            with path.open("rb") as plain:
                stream: IO[bytes] = cast("IO[bytes]", gzip.GzipFile(fileobj=plain)) if path.suffix == ".gz" else plain
                yield from blocks(stream, layout)
        except (pl.exceptions.PolarsError, OSError, EOFError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}", "Put it back from a copy of the set.") from None
