"""The base of every settings model, and the wording of a settings error."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from components.errors import SettingsError


class Settings(BaseModel):
    """A frozen section of params.yaml: unknown keys are errors, nothing is coerced silently."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=False, validate_default=True, use_attribute_docstrings=True
    )


SettingsType = TypeVar("SettingsType")


def validated(model: type[SettingsType], value: Any, where: str) -> SettingsType:
    """Build ``model`` from ``value``.

    Args:
        model: The settings class, or a union of settings classes.
        value: What the YAML file holds at ``where``.
        where: The dotted key of ``value`` in params.yaml, named in errors.

    Raises:
        SettingsError: A key is unknown (names the nearest known one), missing, or has a wrong value.
    """
    try:
        return TypeAdapter(model).validate_python(value)
    except ValidationError as error:
        lines = [_explained(model, value, where, problem) for problem in error.errors()]
        raise SettingsError("\n".join(lines), "Correct params.yaml; `recstill params` lists every key.") from None


def nearest(name: str, known: list[str]) -> str:
    """A phrase that names the known word nearest to ``name``, or all of them when none is near."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"the nearest known one is {close[0]!r}" if close else f"known: {', '.join(sorted(known))}"


def _explained(model: Any, value: Any, where: str, problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    # The tag that chose one model of a union is no key that anybody typed.
    typed = [part for place, part in enumerate(path) if not _is_tag(model, path[:place], part)]
    key = ".".join([where, *typed]) if where else ".".join(typed)
    if problem["type"] == "extra_forbidden":
        return f"params.yaml: unknown key {key!r}; {nearest(path[-1], _known_keys(model, path[:-1]))}"
    if problem["type"] == "missing":
        return f"params.yaml: {key!r} is missing"
    reason = problem["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(problem["input"], dict) else f" (it is {problem['input']!r})"
    return f"params.yaml: {key!r}: {reason}{shown}"


def _known_keys(model: Any, path: list[str]) -> list[str]:
    """The field names at ``path`` below ``model``."""
    return sorted({name for current in _models_at(model, path) for name in current.model_fields})


def _is_tag(model: Any, path: list[str], part: str) -> bool:
    level = _models_at(model, path)
    return not any(part in current.model_fields for current in level) and any(
        _is_tagged(current, part) for current in level
    )


def _models_at(model: Any, path: list[str]) -> list[type[BaseModel]]:
    """The models at ``path`` below ``model``, following nested models and unions of them."""
    level = _models_in(model)
    for part in path:
        fields = [current.model_fields[part] for current in level if part in current.model_fields]
        # No such field: a dictionary's key, or the tag of a union, which may single out one model of it.
        level = (
            [found for field in fields for found in _models_in(field.annotation)]
            or [current for current in level if _is_tagged(current, part)]
            or level
        )
    return level


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models_in(argument)]


def _is_tagged(model: type[BaseModel], tag: str) -> bool:
    kind = model.model_fields.get("kind")
    return kind is not None and tag in get_args(kind.annotation)
