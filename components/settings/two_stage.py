"""``two_stage``: two scenarios that answer together, one that retrieves candidates and one that ranks them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from components.settings.base import Settings


class TwoStageSettings(Settings):
    """Retrieve, then rank: ``score = retrieval's score + weight * log-odds of ranking``, over the candidates."""

    retrieval: str
    """A scenario whose package answers with the best outcomes of a catalogue."""
    ranking: str
    """A scenario on the same source whose package tells how likely something comes of one outcome."""
    candidates: int = Field(default=50, ge=2)
    """Outcomes that are retrieved and ranked."""
    weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.25, 0.5, 1.0, 2.0, 4.0), min_length=1)
    """What the log-odds may weigh beside the retrieval's score; validation chooses one."""
    requests: int = Field(default=200, ge=1)
    """Test requests that latency is measured with, at most."""

    @model_validator(mode="after")
    def _two(self) -> TwoStageSettings:
        if self.retrieval == self.ranking:
            raise ValueError(f"retrieval and ranking are both {self.retrieval!r}: name two scenarios")
        return self
