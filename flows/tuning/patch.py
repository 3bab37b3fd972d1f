"""What a recipe changes in params.yaml: as a diff that can be read, and as the file, with its comments and order."""

from __future__ import annotations

import difflib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from components.settings.base import validated
from components.settings.reading import PARAMS_FILE
from components.settings.scenario import Params
from components.storage.atomic import new_file
from flows.params import round_trip

_CONTEXT = 3  # unchanged lines around a change
REMOVED = object()
"""In the place of a value: the key goes."""


def patched(text: str, scenario: str, changes: Mapping[str, Any]) -> str:
    """params.yaml with other values of one scenario; what stays the same is not touched.

    Args:
        text: The file.
        scenario: Its name.
        changes: Values by dotted names below the scenario; :data:`REMOVED` takes a key out.

    Raises:
        SettingsError: It would no longer be valid.
    """
    yaml_file = round_trip(text)
    document = yaml_file.load(text)
    for key, value in changes.items():
        _put(document["scenarios"][scenario], key, value)
    stream = io.StringIO()
    yaml_file.dump(document, stream)
    validated(Params, yaml.safe_load(stream.getvalue()), "")
    return stream.getvalue()


def diff_of(before: str, after: str) -> str:
    """A unified diff of params.yaml; empty when nothing changes."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    # difflib.unified_diff takes what a long file often has for noise, and would show unchanged sections as changed.
    groups = list(difflib.SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(_CONTEXT))
    lines = [f"--- a/{PARAMS_FILE}\n", f"+++ b/{PARAMS_FILE}\n"] if groups else []
    for group in groups:
        first, last = group[0], group[-1]
        spans = (f"{start + 1},{stop - start}" for start, stop in ((first[1], last[2]), (first[3], last[4])))
        lines.append("@@ -{} +{} @@\n".format(*spans))
        for tag, start, stop, new_start, new_stop in group:
            if tag == "equal":
                lines += [" " + line for line in old[start:stop]]
                continue
            lines += ["-" + line for line in old[start:stop]]
            lines += ["+" + line for line in new[new_start:new_stop]]
    return "".join(lines)


def write_params(root: Path, text: str) -> None:
    """Replace params.yaml, at once or not at all."""
    with new_file(root / PARAMS_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _put(scenario: Any, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    place = scenario
    for parent in parents:
        if place.get(parent) is None:
            if value is REMOVED:
                return
            place[parent] = CommentedMap()
            place[parent].fa.set_flow_style()
        place = place[parent]
    if value is REMOVED:
        place.pop(last, None)
    elif last not in place or place[last] != value:
        place[last] = _styled(value)


def _styled(value: Any) -> Any:
    """As the file has such values: scalars of one thing in a line, the terms of a list below each other."""
    if isinstance(value, dict):
        mapping = CommentedMap({key: _styled(one) for key, one in value.items()})
        if not any(isinstance(one, CommentedSeq) and not one.fa.flow_style() for one in mapping.values()):
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq([_styled(one) for one in value])
        if not any(isinstance(one, CommentedMap) for one in sequence):
            sequence.fa.set_flow_style()
        return sequence
    return value
