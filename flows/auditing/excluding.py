"""Putting a person on the list of those whose rows no run may see, in params.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from components.errors import SettingsError
from flows.params import assign, read_params


def excluded(root: Path, scenarios: Iterable[str], key: str, mark: str) -> list[str]:
    """Put a keyed hash on the exclusion list of scenarios, unless it is there.

    Args:
        root: The checkout, whose params.yaml is changed.
        scenarios: Those of params.yaml; others are passed over: they cannot run any more.
        key: Id of the key that the hash was made with.
        mark: The keyed hash.

    Returns:
        The scenarios whose list has changed.

    Raises:
        SettingsError: A list was made with another key.
    """
    known = read_params(root).scenarios
    changed, assignments = [], []
    for name in scenarios:
        if name not in known:
            continue
        there = known[name].source.exclude
        if there is not None and there.subjects and there.key != key:
            raise SettingsError(
                f"scenarios.{name}.source.exclude was made with key {there.key}, and the key here is {key}",
                "Use that key (RECSTILL_SUBJECT_KEY); a list has one key only.",
            )
        marks = list(there.subjects) if there is not None else []
        if mark not in marks:
            # As text in quotes: digits alone would be taken for a number.
            value = json.dumps({"key": key, "subjects": sorted([*marks, mark])})
            assignments.append(f"scenarios.{name}.source.exclude={value}")
            changed.append(name)
    assign(root, assignments)
    return changed
