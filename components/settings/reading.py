"""Reading params.yaml: one section for a stage, or the raw document for the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from components.errors import SettingsError
from components.settings.base import SettingsType, nearest, validated
from components.settings.two_stage import TwoStageSettings

PARAMS_FILE = "params.yaml"


def read_document(folder: Path) -> dict[str, Any]:
    """The parsed params.yaml in ``folder``, not yet validated.

    Raises:
        SettingsError: The file is missing, is not YAML, or holds no ``scenarios`` mapping.
    """
    path = folder / PARAMS_FILE
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"there is no {PARAMS_FILE} in {folder}", "Run from the root of the checkout.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{PARAMS_FILE} is not valid YAML: {error}", "Correct the line it names.") from None
    if not isinstance(document, dict) or not isinstance(document.get("scenarios"), dict):
        raise SettingsError(f"{PARAMS_FILE} holds no mapping `scenarios:`", "See the README for its form.")
    return document


def scenario_section(folder: Path, scenario: str, section: str) -> Any:
    """What params.yaml in ``folder`` holds at ``scenarios.<scenario>.<section>``, not yet validated.

    Raises:
        SettingsError: There is no such scenario or section.
    """
    scenarios = read_document(folder)["scenarios"]
    if scenario not in scenarios:
        raise SettingsError(f"unknown scenario {scenario!r}; {nearest(scenario, list(scenarios))}")
    if section not in scenarios[scenario]:
        raise SettingsError(f"params.yaml: 'scenarios.{scenario}.{section}' is missing")
    return scenarios[scenario][section]


def read_section(folder: Path, scenario: str, section: str, model: type[SettingsType]) -> SettingsType:
    """One validated section of one scenario: all that a stage may look at.

    Raises:
        SettingsError: The section is missing or wrong.
    """
    return validated(model, scenario_section(folder, scenario, section), f"scenarios.{scenario}.{section}")


def read_pair(folder: Path, name: str) -> TwoStageSettings:
    """The entry ``two_stage.<name>`` of params.yaml in ``folder``.

    Raises:
        SettingsError: There is none, or it is wrong.
    """
    pairs = read_document(folder).get("two_stage") or {}
    if not isinstance(pairs, dict) or name not in pairs:
        raise SettingsError(f"params.yaml: 'two_stage.{name}' is missing")
    return validated(TwoStageSettings, pairs[name], f"two_stage.{name}")
