"""What was made again beside what was made first: file by file, and where bytes differ, what differs in them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.errors import RecstillError
from flows.locked_outputs import file_md5

Verdict = Literal["identical", "measured", "same values", "other bytes", "other figures", "missing", "unknown"]
"""Of one file. ``measured``: differs in times and memory only. ``same values``: tables or tensors of equal content."""

# What is measured anew at every run, by the end of the last part of a figure's name; and all below `cost`.
_MEASURED = re.compile(r"(^|_)(seconds|ms|mib|throughput|latency_ratio)$")
_COST = "cost"
_RENDERED = {".html", ".md", ".svg", ".png"}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_DIGEST = re.compile(r"[0-9a-f]{32,64}")
_SHOWN = 3


@dataclass(frozen=True)
class Tolerance:
    """How far a figure may lie from the first one when weights differ.

    Attributes:
        absolute: In the figure's own unit.
        relative: As a share of the first one.
    """

    absolute: float = 0.02
    relative: float = 0.05

    def holds(self, first: float, again: float) -> bool:
        """Whether ``again`` is near enough."""
        return abs(again - first) <= max(self.absolute, self.relative * abs(first))

    def __str__(self) -> str:
        return f"{self.absolute:g} or {self.relative:.0%} of the first value, whichever is more"


@dataclass
class ComparedFile:
    """One file, made twice.

    Attributes:
        path: From the checkout's root.
        verdict: What was found.
        reason: Why it is not identical, in words; empty when it is.
        figures: Quality and size figures that differ: the first value and the one made again, by dotted name.
        measured: How many times and memory figures were measured anew.
    """

    path: str
    verdict: Verdict
    reason: str = ""
    figures: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    measured: int = 0


def compare_folders(first: Path, again: Path, shown: str) -> list[ComparedFile]:
    """Compare all files of two folders, or two files.

    Args:
        first: What was made first.
        again: What was made again.
        shown: The path that both have in a checkout.
    """
    if not first.is_dir():
        return [compare_files(first, again, shown)]
    names = {path.relative_to(first).as_posix() for path in first.rglob("*") if path.is_file()}
    names |= {path.relative_to(again).as_posix() for path in again.rglob("*") if path.is_file()}
    return [compare_files(first / name, again / name, f"{shown}/{name}") for name in sorted(names)]


def compare_files(first: Path, again: Path, shown: str) -> ComparedFile:
    """Compare two files; see :class:`ComparedFile`."""
    for path, when in ((first, "was not made at first"), (again, "was not made again")):
        if not path.is_file():
            return ComparedFile(shown, "missing", when)
    if file_md5(first) == file_md5(again):
        return ComparedFile(shown, "identical")
    compare = _BY_SUFFIX.get(again.suffix)
    if compare is None and again.suffix in _RENDERED:
        return _rendered(first, again, shown)
    if compare is None:
        return ComparedFile(shown, "other bytes", "its bytes differ")
    try:
        return compare(first, again, shown)
    except (ValueError, OSError, RecstillError) as error:
        return ComparedFile(shown, "other bytes", f"its bytes differ, and it cannot be read: {error}")


def _json(first: Path, again: Path, shown: str) -> ComparedFile:
    return _figures(
        dict(_leaves(json.loads(first.read_text("utf-8")))), dict(_leaves(json.loads(again.read_text("utf-8")))), shown
    )


def _csv(first: Path, again: Path, shown: str) -> ComparedFile:
    def rows(path: Path) -> dict[str, Any]:
        with path.open(encoding="utf-8", newline="") as stream:
            return {
                f"row {number}.{name}": _value(text)
                for number, row in enumerate(csv.DictReader(stream), start=1)
                for name, text in row.items()
            }

    return _figures(rows(first), rows(again), shown)


def _figures(first: Mapping[str, Any], again: Mapping[str, Any], shown: str) -> ComparedFile:
    """Times and memory are measured anew; every other value has to be the same."""
    differing: dict[str, tuple[Any, Any]] = {}
    measured = 0
    for name in sorted({*first, *again}):
        one, other = first.get(name), again.get(name)
        if is_measured(name):
            measured += one != other
        elif one != other:
            differing[name] = (one, other)
    # The digest of a file beside this one differs when that file does, and that one is compared itself.
    differing = {name: pair for name, pair in differing.items() if not _of_a_neighbour(name)}
    if not differing:
        what = "times and memory, which are measured anew" if measured else "digests of files that are compared"
        return ComparedFile(shown, "measured", f"only {what}", measured=measured)
    names = ", ".join(list(differing)[:_SHOWN]) + (f" and {len(differing) - _SHOWN} more" if len(differing) > 3 else "")
    return ComparedFile(shown, "other figures", f"{names} differ", differing, measured)


def _rendered(first: Path, again: Path, shown: str) -> ComparedFile:
    """A page or a plot shows what records hold, and those are compared; its words have to be the same."""
    if again.suffix != ".md":
        return ComparedFile(
            shown, "measured", "it shows figures of records that are compared on their own, times among them"
        )
    masked = [_NUMBER.sub("#", _DIGEST.sub("#", path.read_text("utf-8"))) for path in (first, again)]
    if masked[0] != masked[1]:
        return ComparedFile(shown, "other bytes", "its words differ")
    return ComparedFile(
        shown, "measured", "it shows figures of records that are compared on their own, times among them"
    )


def _parquet(first: Path, again: Path, shown: str) -> ComparedFile:
    import polars as pl

    try:
        tables = [pl.read_parquet(path) for path in (first, again)]
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from None
    if tables[0].equals(tables[1]):
        return ComparedFile(shown, "same values", "the same table, written by another version of the library")
    return ComparedFile(shown, "other bytes", f"another table: {len(tables[1]):,} rows, at first {len(tables[0]):,}")


def _safetensors(first: Path, again: Path, shown: str) -> ComparedFile:
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        one, other = load_file(first), load_file(again)
    except (SafetensorError, TypeError) as error:
        raise ValueError(str(error)) from None
    if {name: value.shape for name, value in one.items()} != {name: value.shape for name, value in other.items()}:
        return ComparedFile(shown, "other bytes", "tensors of other names or shapes")
    largest = max(
        (float(np.abs(one[name].astype(float) - other[name].astype(float)).max(initial=0)) for name in one), default=0.0
    )
    if largest == 0.0:
        return ComparedFile(shown, "same values", "the same tensors, written by another version of the library")
    return ComparedFile(shown, "other bytes", f"weights differ by up to {largest:.2g}")


_BY_SUFFIX: Mapping[str, Callable[[Path, Path, str], ComparedFile]] = {
    ".json": _json,
    ".csv": _csv,
    ".parquet": _parquet,
    ".safetensors": _safetensors,
}


def is_measured(name: str) -> bool:
    """Whether a figure is a time, a rate or memory, which no two runs have alike."""
    parts = name.split(".")
    return _COST in parts or bool(_MEASURED.search(parts[-1]))


def _of_a_neighbour(name: str) -> bool:
    return name.startswith("files.") and name.rpartition(".")[2] in ("sha256", "bytes")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{name}.{number}" if name else str(number))
    else:
        yield name, value


def _value(text: str | None) -> Any:
    try:
        return float(text or "")
    except ValueError:
        return text
