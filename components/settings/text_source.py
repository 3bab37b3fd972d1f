"""``scenarios.*.source`` of texts with a label."""

from __future__ import annotations

import codecs
from typing import Literal

from pydantic import Field, field_validator, model_validator

from components.settings.base import Settings


class _Texts(Settings):
    path: str
    """What ingest reads; DVC runs ingest again when it changes."""
    max_rejected_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails when a greater share of texts than this is bad."""

    @property
    def exclude(self) -> None:
        """Texts are of nobody who could be left out."""
        return None

    @property
    def as_of(self) -> None:
        """Texts have no time."""
        return None


class PublishedTextSource(_Texts):
    """A public set of texts with known SHA-256 digests, and with the test that its publishers set apart."""

    kind: Literal["r8"]
    """Which published set."""

    @model_validator(mode="after")
    def _entry_of_this_set(self) -> PublishedTextSource:
        expected = f"components/data/catalogue/{self.kind}.yaml"
        if self.path != expected:
            raise ValueError(f"the path of source kind {self.kind!r} is its catalogue entry, {expected!r}")
        return self


class TextColumns(Settings):
    """Which column of a table of texts holds what."""

    text: str = "text"
    """Column with the text."""
    label: str = "label"
    """Column with the label: text, or a whole number."""
    split: str | None = None
    """Optional column that says ``test`` where a text belongs to the test; every other value is for training."""


class TextTableSource(_Texts):
    """Anyone's own texts: a Parquet or CSV file, or a folder of them."""

    kind: Literal["text-table"]
    """The user's own texts."""
    columns: TextColumns = TextColumns()
    """Which column holds what."""
    encoding: str = "utf-8"
    """Encoding of CSV files, e.g. ``gb18030``. A row with bytes that are none of its characters is put aside."""
    max_characters: int = Field(default=100_000, ge=1)
    """Longer texts are put aside."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            codecs.lookup(value)
            "".encode(value)
        except LookupError:
            raise ValueError("no such encoding; name one such as utf-8, gb18030, latin-1, utf-16") from None
        return value


TextSource = PublishedTextSource | TextTableSource
"""Any of them."""
