"""The source that a scenario's settings name."""

from __future__ import annotations

from pathlib import Path

from components.data.feeds import Feed
from components.data.published import CatalogueEntry, PublishedSet, read_entry
from components.data.rated_movies import RatedMovies
from components.data.rows import Source
from components.data.sequences import Sequences
from components.data.split_tables import open_split
from components.data.synthetic import SyntheticLog
from components.data.synthetic_clicks import SyntheticClicks
from components.data.synthetic_feed import SyntheticFeed
from components.data.tables import Table
from components.settings.feed_source import FeedSource, FeedTableSource, SyntheticFeedSource
from components.settings.labelled_source import (
    LabelledSource,
    LabelledTableSource,
    RatedMoviesSource,
    SyntheticClicksSource,
)
from components.settings.source import PublishedSource, SequenceSource, SourceSettings, TableSource
from components.settings.split_source import PublishedSplitSource, SplitSource, SplitTableSource


def open_source(settings: SourceSettings | LabelledSource | SplitSource | FeedSource, root: Path) -> Source:
    """The source of a scenario.

    Args:
        settings: ``scenarios.<scenario>.source``.
        root: The checkout, which relative paths start from.

    Raises:
        DataError: The source is not there, or cannot be fetched.
        IntegrityError: What was fetched is not what was expected.
    """
    match settings:
        case PublishedSource():
            found: Source = PublishedSet(read_entry(root / settings.path, CatalogueEntry), settings.features)
        case SequenceSource():
            found = Sequences(root / settings.path, settings.layout)
        case RatedMoviesSource():
            found = RatedMovies(settings, root)
        case SyntheticClicksSource():
            found = SyntheticClicks(settings)
        case FeedTableSource():
            found = Feed(Table(settings, root), settings.interest)
        case SyntheticFeedSource():
            found = Feed(SyntheticFeed(settings), settings.interest)
        case TableSource() | LabelledTableSource():
            found = Table(settings, root)
        case PublishedSplitSource() | SplitTableSource():
            found = open_split(settings, root)
        case _:
            found = SyntheticLog(settings)
    return found
