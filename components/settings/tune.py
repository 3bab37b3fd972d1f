"""``scenarios.*.tune``: which recipes `recstill tune` tries."""

from __future__ import annotations

import json
from typing import Any

from pydantic import Field, model_validator

from components.settings.base import Settings


class Choices(Settings):
    """A parameter that takes one of some values."""

    choices: tuple[Any, ...] = Field(min_length=1)
    """Values as params.yaml would hold them: numbers, words, lists, or whole sections."""

    @model_validator(mode="after")
    def _named_once(self) -> Choices:
        try:
            texts = [json.dumps(choice, sort_keys=True) for choice in self.choices]
        except TypeError:
            raise ValueError("a choice is a number, a word, a list or a mapping") from None
        if len(set(texts)) != len(texts):
            raise ValueError("no choice may be named twice")
        return self

    def candidates(self) -> tuple[Any, ...]:
        """Values whose validity says that all are valid: all of them."""
        return self.choices

    def holds(self, value: Any) -> bool:
        """Whether a value is one of them."""
        return value in self.choices


class Range(Settings):
    """A number between two others, both included; a whole one when both are."""

    low: int | float
    """The least."""
    high: int | float
    """The greatest."""
    step: int | float | None = Field(default=None, gt=0)
    """Distance of two values. None: 1 of whole numbers, any of others."""
    log: bool = False
    """Tried evenly over orders of magnitude, for what acts by its ratio (a learning rate)."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0, and goes without step")
        if self.step is not None and self.step > self.high - self.low:
            raise ValueError(f"step ({self.step}) leads beyond high ({self.high})")
        return self

    @property
    def whole(self) -> bool:
        """Whether the values are whole numbers."""
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    def candidates(self) -> tuple[Any, ...]:
        """Values whose validity says that all are valid: the two ends."""
        return self.low, self.high

    def holds(self, value: Any) -> bool:
        """Whether a value lies in it, on a step."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        if self.whole and not isinstance(value, int):
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return abs(steps - round(steps)) < 1e-9


Searched = Choices | Range
"""What a parameter may be in a trial."""


class TuneSettings(Settings):
    """The search space, beside what is known of the network's kind (`docs/tuning.md` lists that)."""

    space: dict[str, Searched | None] = {}
    """What a parameter may be, by its dotted name below the scenario (`student.network.dim`), in the place of what is
    known of it. Null: it stays as the scenario has it."""
    only: bool = False
    """Whether `space` is all that is tried."""
