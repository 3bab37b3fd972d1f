"""What is different between two runs: data, parameters, code, metrics, bytes, latency, lineage."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from components.errors import RecstillError
from flows.auditing.lock_parsing import StageRun
from flows.auditing.records import FIGURES, kind_of
from flows.auditing.subject import DATASET, NO_CONTENT, PACKAGE, Subject

if TYPE_CHECKING:
    from flows.auditing.lineage import Lineage

_ABSENT = object()
_SOURCE = ("kind", "path", "as_of", "first_event", "last_event", "rows", "digest", "window_seconds")
_COUNTS = ("events", "users", "items", "points", "density", "median_history", "digest")
_COST = ("bytes", "p50_ms", "p95_ms", "p99_ms", "throughput", "peak_mib", "parameters", "training_seconds")


@dataclass
class Side:
    """One of the two.

    Attributes:
        text: As it was asked.
        what: What it is.
        scenario: Whose run.
        runs: Those of its chain that were compared, by stage.
        data: Figures of source and data set.
        metrics: Figures of what ships.
        lineage: Digests by kind.
        sizes: Bytes by kind of output.
        notes: What could not be read.
    """

    text: str
    what: str
    scenario: str
    runs: dict[str, StageRun]
    data: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same.

    Attributes:
        part: ``data``, ``parameters``, ``code``, ``metrics``, ``cost``, ``bytes``, ``lineage``.
        name: What.
        before, after: On either side; None: it is not there.
    """

    part: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Comparison:
    """Both, and what is different.

    Attributes:
        sides: The two.
        differences: By part, in the order of the parts.
        notes: What could not be compared.
    """

    sides: tuple[Side, Side]
    differences: list[Difference]
    notes: list[str]

    def record(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "a": {"text": self.sides[0].text, "what": self.sides[0].what, "scenario": self.sides[0].scenario},
            "b": {"text": self.sides[1].text, "what": self.sides[1].what, "scenario": self.sides[1].scenario},
            "same": not self.differences,
            "differences": [vars(one) for one in self.differences],
            "notes": self.notes,
        }


def compare(lineage: Lineage, before: Subject, after: Subject) -> Comparison:
    """What is different between what two subjects were made of, and between them.

    Raises:
        RecstillError: One of them was made by no run that is known.
    """
    one, other = _side(lineage, before), _side(lineage, after)
    differences = [
        *_mappings("data", one.data, other.data),
        *_mappings("parameters", _parameters(one), _parameters(other)),
        *_mappings("code", _code(one), _code(other)),
        *_mappings("metrics", _without(one.metrics, _COST), _without(other.metrics, _COST)),
        *_mappings("cost", _only(one.metrics, _COST), _only(other.metrics, _COST)),
        *_mappings("bytes", one.sizes, other.sizes),
        *_mappings("lineage", one.lineage, other.lineage),
    ]
    return Comparison((one, other), differences, [*dict.fromkeys([*one.notes, *other.notes, *lineage.notes])])


def _side(lineage: Lineage, subject: Subject) -> Side:
    chain = lineage.trace(subject)
    if not chain.nodes:
        raise RecstillError(
            f"{subject.text} was made by no run that is known, so there is nothing to compare",
            "Name a version, or something that a run made.",
        )
    scenario = chain.ends[0].run.scenario
    nodes = [node for node in chain.nodes if node.run.scenario == scenario and node.links]
    runs = {node.run.stage: node.run for node in reversed(nodes)}
    side = Side(subject.text, subject.what, scenario, runs, notes=[*chain.notes])
    side.sizes = {
        kind_of(path): size
        for run in runs.values()
        for path, size in run.sizes.items()
        if path in run.outputs and kind_of(path) not in FIGURES and not path.endswith((".html", "metrics.json"))
    }
    side.lineage = {node.role: node.digest for node in nodes if node.digest}
    if subject.release is not None:
        own = {kind: digest for kind, digest in subject.release.lineage.items() if kind not in NO_CONTENT}
        named = {kind: digest for kind, digest in side.lineage.items() if digest not in own.values()}
        side.lineage = {**named, **own, PACKAGE: subject.release.package}
    _data(lineage, side)
    side.metrics = _metrics(lineage, subject, side)
    return side


def _data(lineage: Lineage, side: Side) -> None:
    """Counts and times of source and data set, as their records tell them."""
    for run in side.runs.values():
        for path, md5 in run.outputs.items():
            if kind_of(path) == "source" and (told := _document(lineage, run, path, md5)):
                side.data |= {f"source.{key}": told[key] for key in _SOURCE if key in told}
                side.data |= {f"source.rejected.{key}": value for key, value in (told.get("rejected") or {}).items()}
            elif kind_of(path) == DATASET and path.count("/") == 2:
                told = _member(lineage, run, path, md5, f"{DATASET}.json")
                if told is None:
                    side.notes.append(f"the counts of {path} are not known here: its bytes are not on this machine")
                    continue
                side.data |= {f"{DATASET}.{key}": told[key] for key in _COUNTS if key in told}
                splits = told.get("events_per_split") or {}
                side.data |= {f"{DATASET}.events_per_split.{key}": value for key, value in splits.items()}


def _metrics(lineage: Lineage, subject: Subject, side: Side) -> dict[str, Any]:
    """Figures of what ships: from the package's record, else from the report's choice."""
    if subject.release is not None:
        release = subject.release
        try:
            content = lineage.shelf.store.get(f"packages/{release.package}/package.json", release.package)
            if isinstance(found := json.loads(content), dict) and "metrics" in found:
                return {**found["metrics"], "chosen": (found.get("choice") or {}).get("chosen")}
        except (RecstillError, ValueError) as error:
            side.notes.append(f"the record of {release} cannot be read: {error}")
    for run in side.runs.values():
        for path, md5 in run.outputs.items():
            if path.endswith("/choice.json") and (told := _document(lineage, run, path, md5)):
                return {**(told.get("figures") or {}), "chosen": told.get("chosen")}
    merged: dict[str, Any] = {}
    for stage, run in side.runs.items():
        statement, _ = lineage.shelf.statement(run)
        merged |= {f"{stage}.{key}": value for key, value in (statement.metrics if statement else {}).items()}
    return merged


def _document(lineage: Lineage, run: StageRun, path: str, md5: str) -> dict[str, Any] | None:
    told = lineage.local.document(md5, path)
    if isinstance(told, dict):
        return told
    statement, _ = lineage.shelf.statement(run)
    return dict(statement.metrics) if statement and statement.metrics else None


def _member(lineage: Lineage, run: StageRun, path: str, md5: str, name: str) -> dict[str, Any] | None:
    one = lineage.local.members(md5).get(name)
    if one is None:
        statement, _ = lineage.shelf.statement(run)
        subject = statement.subjects.get(f"{path}/{name}") if statement else None
        one = subject.md5 if subject else None
        if one is None:
            return None
    return _document(lineage, run, f"{path}/{name}", one)


def _parameters(side: Side) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for run in side.runs.values():
        merged |= _flat(run.settings)
    return merged


def _code(side: Side) -> dict[str, Any]:
    return {path: md5[:12] for run in side.runs.values() for path, md5 in run.code.items()}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _mappings(part: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    names = [*before, *(name for name in after if name not in before)]
    return [
        Difference(part, name, before.get(name), after.get(name))
        for name in names
        if before.get(name, _ABSENT) != after.get(name, _ABSENT)
    ]


def _only(figures: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name.removesuffix("_ratio") in names}


def _without(figures: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name.removesuffix("_ratio") not in names}
