"""params.yaml for the command line: read whole, explained, and changed without losing its comments."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML

from components.errors import SettingsError
from components.evaluation.selection import check_figures
from components.settings.base import nearest, validated
from components.settings.reading import PARAMS_FILE, read_document
from components.settings.scenario import Params, Scenario
from components.storage.atomic import new_file
from components.tasks.building import task_class, task_names
from flows.type_words import section_kind, type_words


@dataclass(frozen=True)
class Parameter:
    """One key of a scenario.

    Attributes:
        key: Dotted, below ``scenarios.<name>``.
        type: In words.
        value: What it is in the scenario that was asked for, or its default.
        meaning: One or two sentences.
    """

    key: str
    type: str
    value: str
    meaning: str


def read_params(root: Path) -> Params:
    """All of params.yaml, validated.

    Raises:
        SettingsError: It is missing or wrong.
    """
    params = validated(Params, read_document(root), "")
    for name, scenario in params.scenarios.items():
        if scenario.task not in task_names():
            raise SettingsError(
                f"scenarios.{name}.task: unknown task {scenario.task!r}; {nearest(scenario.task, task_names())}",
                "docs/tasks.md lists them.",
            )
    return params


def check_gate(scenario: Scenario) -> None:
    """Refuse bounds of figures that the task does not measure: told here, and not after hours of training.

    Raises:
        SettingsError: ``gate.figures`` names one.
    """
    if scenario.gate.figures:  # else nobody has to wait for the task to be imported
        check_figures(scenario.gate, task_class(scenario.task).measures)


def schema() -> dict[str, Any]:
    """The JSON schema of params.yaml, for editors."""
    return Params.model_json_schema()


def assign(root: Path, assignments: Sequence[str]) -> list[str]:
    """Apply ``key=value`` assignments to params.yaml, all or none, keeping its comments and order.

    Returns:
        One phrase for each value that changed.

    Raises:
        SettingsError: An assignment is malformed, or params.yaml would no longer be valid.
    """
    if not assignments:
        return []
    read_document(root)
    path = root / PARAMS_FILE
    before = path.read_text(encoding="utf-8")
    yaml_file = round_trip(before)
    document = yaml_file.load(before)
    changes = [change for assignment in assignments if (change := _assigned(document, assignment))]
    text = io.StringIO()
    yaml_file.dump(document, text)
    validated(Params, yaml.safe_load(text.getvalue()), "")
    if changes:
        with new_file(path) as temporary:
            temporary.write_text(text.getvalue(), encoding="utf-8")
    return changes


def round_trip(text: str) -> YAML:
    """A reader and writer of a params.yaml that keeps comments, order, quotes and, as the file has them, indents."""
    candidates = [_writer(sequence, offset) for sequence, offset in ((4, 2), (2, 0))]
    return min(candidates, key=lambda candidate: _changed_lines(text, candidate))


def _writer(sequence: int, offset: int) -> YAML:
    yaml_file = YAML()
    yaml_file.preserve_quotes = True
    yaml_file.width = 1 << 16  # a line that somebody wrote long stays one line
    yaml_file.indent(mapping=2, sequence=sequence, offset=offset)
    return yaml_file


def _changed_lines(text: str, yaml_file: YAML) -> int:
    """Lines of a file that are written otherwise although nothing in it has changed."""
    stream = io.StringIO()
    yaml_file.dump(yaml_file.load(text), stream)
    return sum((Counter(text.splitlines()) - Counter(stream.getvalue().splitlines())).values())


def _assigned(document: Any, assignment: str) -> str:
    key, separator, text = assignment.partition("=")
    if not separator or not key.strip():
        raise SettingsError(f"--set {assignment!r} is not KEY=VALUE", "Example: --set scenarios.movielens.seed=1")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise SettingsError(f"--set {key}: {text!r} is not a YAML value") from None
    *parents, last = key.strip().split(".")
    place = document
    for depth, parent in enumerate(parents):
        # Below a scenario a section may be left out in the file, since it has defaults; a scenario may not.
        if parent not in place and depth < 2:
            raise SettingsError(
                f"--set: unknown key {'.'.join(parents[: depth + 1])!r}; {nearest(parent, list(place))}"
            )
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise SettingsError(f"--set: {'.'.join(parents[: depth + 1])!r} is a value, it has no keys")
    before = place.get(last)
    if last in place and before == value:
        return ""
    place[last] = value
    return f"{key.strip()} {before!r} -> {value!r}"


def described(params: Params | None, scenario: str | None) -> list[Parameter]:
    """Every parameter of a scenario, with the scenario's values when one is named.

    Raises:
        SettingsError: There is no such scenario.
    """
    values: BaseModel | None = None
    if params is not None and scenario is not None:
        values = params.scenario(scenario)
    return list(_fields(Scenario, values, ""))


def _fields(
    model: type[BaseModel], values: BaseModel | None, prefix: str, names: Collection[str] | None = None
) -> Iterator[Parameter]:
    for name, field in model.model_fields.items():
        if names is not None and name not in names:
            continue
        key = f"{prefix}{name}"
        value = getattr(values, name) if values is not None else field.get_default(call_default_factory=True)
        nested = _nested_models(field, value if values is not None else None)
        meaning = " ".join((field.description or "").split())
        # Without a value such a section is left out: its keys then say what it would be.
        if nested and value is None and not field.is_required():
            yield Parameter(key, "section | None", _shown(value), meaning)
        if not nested:
            yield Parameter(key, type_words(field.annotation), _shown(value), meaning)
        yield from _of_list(_listed_models(field), key)
        for inner in nested:
            title = f"{key}." if len(nested) == 1 else f"{key}[{section_kind(inner)}]."
            inner_values = value if isinstance(value, inner) else None
            yield from _fields(inner, inner_values, title)


def _of_list(models: Sequence[type[BaseModel]], key: str) -> Iterator[Parameter]:
    """What the entries of a list may hold: the keys of all kinds once, then those of each kind."""
    if not models:
        return
    shared = set.intersection(*(set(model.model_fields) for model in models)) - {"kind"}
    yield from _fields(models[0], None, f"{key}[*].", shared)
    for model in models:
        yield from _fields(model, None, f"{key}[{section_kind(model)}].", set(model.model_fields) - shared - {"kind"})


def _listed_models(field: FieldInfo) -> list[type[BaseModel]]:
    """The models that a list in a field may hold, in their order."""

    def models(annotation: Any) -> list[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            return [annotation]
        return [found for argument in get_args(annotation) for found in models(argument)]

    options = (field.annotation, *get_args(field.annotation))
    return [found for option in options if get_origin(option) is tuple for found in models(option)]


def _nested_models(field: FieldInfo, value: Any) -> list[type[BaseModel]]:
    if isinstance(value, BaseModel):
        return [type(value)]
    candidates = (field.annotation, *get_args(field.annotation))
    return [kind for kind in candidates if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _shown(value: Any) -> str:
    if isinstance(value, tuple) and value and all(isinstance(entry, BaseModel) for entry in value):
        return " + ".join(str(getattr(entry, "kind", entry)) for entry in value)
    return "(required)" if value is PydanticUndefined else str(value)
