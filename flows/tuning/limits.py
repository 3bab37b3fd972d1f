"""Limits as people write them: ``200kB``, ``1ms``, ``0.98``, ``30m``; and the scenario's own where none is given."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from components.errors import SettingsError
from components.evaluation.frontier import Limits
from components.settings.evaluation import BudgetSettings, GateSettings
from components.settings.scenario import Scenario

_BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_MILLISECONDS = {"us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Asked(NamedTuple):
    """What a search is to meet.

    Attributes:
        limits: All of them.
        given: Those that the command line gave, by dotted names below the scenario.
    """

    limits: Limits
    given: dict[str, int | float]


def limits_of(scenario: Scenario, max_bytes: str | None, max_p95: str | None, min_retention: str | None) -> Asked:
    """The scenario's budget and gate, with what is given in their place.

    Args:
        scenario: Whose.
        max_bytes: ``200kB``; None: as the scenario has it.
        max_p95: ``1ms``; None: as the scenario has it.
        min_retention: ``0.98`` or ``98%``; None: as the scenario has it.

    Raises:
        SettingsError: One is no such quantity.
    """
    given: dict[str, int | float] = {}
    if max_bytes is not None:
        given["budget.max_bytes"] = parsed_bytes(max_bytes)
    if max_p95 is not None:
        given["budget.max_p95_ms"] = parsed_milliseconds(max_p95)
    if min_retention is not None:
        given["gate.min_retention"] = parsed_share(min_retention)
    budget: dict[str, int | float] = {
        key.partition(".")[2]: value for key, value in given.items() if key.startswith("budget.")
    }
    # An absolute limit stands in the place of the scenario's relative one of the same thing.
    relative = {"max_bytes": "max_bytes_ratio", "max_p95_ms": "max_latency_ratio"}
    dropped = {relative[key]: None for key in budget}
    gate = {"min_retention": given["gate.min_retention"]} if "gate.min_retention" in given else {}
    limits = Limits(
        BudgetSettings.model_validate({**scenario.budget.model_dump(), **dropped, **budget}),
        GateSettings.model_validate({**scenario.gate.model_dump(), **gate}),
    )
    return Asked(limits, given)


def parsed_bytes(text: str) -> int:
    """Bytes of ``200kB``, ``1.5 MB``, ``64KiB``, ``40000``.

    Raises:
        SettingsError: It is no number of bytes.
    """
    value = _parsed("--max-bytes", text, _BYTES, "200kB, 1.5MB, 64KiB or a plain number of bytes")
    if value < 1:
        raise SettingsError(f"--max-bytes {text!r} is less than one byte", "Write 200kB, 1.5MB, 64KiB.")
    return math.floor(value)


def parsed_milliseconds(text: str) -> float:
    """Milliseconds of ``1ms``, ``250us``, ``0.5s``.

    Raises:
        SettingsError: It is no time.
    """
    return _parsed("--max-p95", text, _MILLISECONDS, "1ms, 250us or 0.5s")


def parsed_share(text: str) -> float:
    """A share of ``0.98`` or ``98%``.

    Raises:
        SettingsError: It is no share above 0, or one that no student can be asked for.
    """
    value = _parsed("--min-retention", text, {"": 1.0, "%": 0.01}, "0.98 or 98%")
    if value > 2:
        raise SettingsError(f"--min-retention {text!r} is more than twice the teacher's quality", "Write 0.98 or 98%.")
    return round(value, 6)


def parsed_seconds(text: str) -> float:
    """Seconds of ``90s``, ``30m``, ``6h``.

    Raises:
        SettingsError: It is no time.
    """
    return _parsed("--max-time", text, _SECONDS, "90s, 30m or 6h")


def _parsed(option: str, text: str, units: dict[str, float], example: str) -> float:
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-zA-Zµμ%]*)\s*", text)
    factor = units.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise SettingsError(f"{option} {text!r} is no such quantity", f"Write {example}.")
    value = float(found[1]) * factor
    if not math.isfinite(value):
        raise SettingsError(f"{option} {text!r} is more than a number can be", f"Write {example}.")
    if value <= 0:
        raise SettingsError(f"{option} {text!r} must be above 0", f"Write {example}.")
    return value
