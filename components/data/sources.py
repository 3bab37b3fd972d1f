"""The source that a scenario's settings name."""

from __future__ import annotations

from pathlib import Path

from components.data.published import CatalogueEntry, PublishedSet, read_entry
from components.data.rated_movies import RatedMovies
from components.data.rows import Source
from components.data.sequences import Sequences
from components.data.split_tables import open_split
from components.data.synthetic import SyntheticLog
from components.data.synthetic_clicks import SyntheticClicks
from components.data.tables import Table
from components.settings.labelled_source import (
    LabelledSource,
    LabelledTableSource,
    RatedMoviesSource,
    SyntheticClicksSource,
)
from components.settings.source import PublishedSource, SequenceSource, SourceSettings, TableSource
from components.settings.split_source import SplitSource


def open_source(settings: SourceSettings | LabelledSource | SplitSource, root: Path) -> Source:
    """The source of a scenario.

    Args:
        settings: ``scenarios.<scenario>.source``.
        root: The checkout, which relative paths start from.

    Raises:
        DataError: The source is not there, or cannot be fetched.
        IntegrityError: What was fetched is not what was expected.
    """
    if isinstance(settings, PublishedSource):
        return PublishedSet(read_entry(root / settings.path, CatalogueEntry))
    if isinstance(settings, SequenceSource):
        return Sequences(root / settings.path)
    if isinstance(settings, RatedMoviesSource):
        return RatedMovies(settings, root)
    if isinstance(settings, SyntheticClicksSource):
        return SyntheticClicks(settings)
    if isinstance(settings, TableSource | LabelledTableSource):
        return Table(settings, root)
    if isinstance(settings, SplitSource):
        return open_split(settings, root)
    return SyntheticLog(settings)
