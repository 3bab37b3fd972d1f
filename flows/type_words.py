"""What may stand at a key of params.yaml, in words of one who writes YAML."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

_OF_VALUES = {NoneType: "None", datetime: "date and time", timedelta: "duration"}


def type_words(annotation: Any) -> str:
    """Names the type of a setting: ``float | None``, ``list of str``, ``fp32 | int8_static``.

    A section is called by its kind, where it has one.

    Args:
        annotation: Of a field of a model.
    """
    kind, inner = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return type_words(inner[0])
    if kind is Literal:
        return _any_of(map(str, inner))
    if kind in (Union, UnionType):
        return _any_of(map(type_words, inner))
    if kind in (tuple, list):
        words = _any_of(type_words(one) for one in inner if one is not Ellipsis)
        return f"list of ({words})" if "|" in words else f"list of {words}"
    if kind is dict:
        return f"{type_words(inner[1])}, by name"
    return _of_one(annotation)


def _of_one(annotation: Any) -> str:
    if annotation in _OF_VALUES:
        return _OF_VALUES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return section_kind(annotation) if "kind" in annotation.model_fields else "section"
    return str(annotation.__name__)


def _any_of(words: Iterable[str]) -> str:
    return " | ".join(dict.fromkeys(words))


def section_kind(model: type[BaseModel]) -> str:
    """The words that ``kind`` of a section may be, ``|`` between them."""
    return "|".join(str(word) for word in get_args(model.model_fields["kind"].annotation))
