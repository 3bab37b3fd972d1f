from datetime import timedelta
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from components.settings.least_squares import LeastSquaresSettings
from flows.params import described
from flows.type_words import type_words


class Section(BaseModel):
    """One without a kind."""


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (float, "float"),
        (timedelta | None, "duration | None"),
        (Literal["fp32", 8], "fp32 | 8"),
        (Literal["mnist"] | None, "mnist | None"),
        (int | str | list[int], "int | str | list of int"),
        (tuple[Annotated[int, Field(ge=1)], ...], "list of int"),
        (tuple[float, float], "list of float"),
        (dict[str, float], "float, by name"),
        (Annotated[LeastSquaresSettings | None, Field()], "alternating_least_squares | None"),
        (tuple[Section, ...], "list of section"),
        (tuple[Literal["a", "b"], ...] | None, "list of (a | b) | None"),
    ],
)
def test_types_are_told_in_words(annotation: Any, words: str) -> None:
    assert type_words(annotation) == words


def test_no_parameter_shows_the_types_of_the_program() -> None:
    types = {parameter.type for parameter in described(None, None)}
    assert not any(sign in words for words in types for sign in "[]{}'=."), types
