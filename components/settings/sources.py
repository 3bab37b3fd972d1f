"""``scenarios.*.source`` of any kind: events of users and items, or samples or texts with a label."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.settings.feed_source import FeedTableSource, SyntheticFeedSource
from components.settings.labelled_source import LabelledTableSource, RatedMoviesSource, SyntheticClicksSource
from components.settings.sample_source import SampleSource
from components.settings.source import PublishedSource, SequenceSource, SyntheticSource, TableSource
from components.settings.split_source import PublishedSplitSource, SplitTableSource
from components.settings.text_source import PublishedTextSource, TextTableSource

SourceSection = Annotated[
    PublishedSource
    | TableSource
    | SyntheticSource
    | SequenceSource
    | SampleSource
    | LabelledTableSource
    | RatedMoviesSource
    | SyntheticClicksSource
    | FeedTableSource
    | SyntheticFeedSource
    | PublishedTextSource
    | TextTableSource
    | PublishedSplitSource
    | SplitTableSource,
    Field(discriminator="kind"),
]
