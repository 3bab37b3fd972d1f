"""``scenarios.*.prepare`` of any kind: of events, which need not say so, of samples, rows with a label, or texts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from components.settings.labelled_prepare import LabelledPrepareSettings
from components.settings.prepare import PrepareSettings
from components.settings.sample_prepare import SamplePrepareSettings
from components.settings.text_prepare import TextPrepareSettings


def kind_of(value: Any) -> str:
    """``events`` unless something else is named."""
    kind = value.get("kind", "events") if isinstance(value, dict) else getattr(value, "kind", "events")
    return str(kind)


PrepareSection = Annotated[
    Annotated[PrepareSettings, Tag("events")]
    | Annotated[SamplePrepareSettings, Tag("samples")]
    | Annotated[LabelledPrepareSettings, Tag("labelled")]
    | Annotated[TextPrepareSettings, Tag("texts")],
    Discriminator(kind_of),
]
