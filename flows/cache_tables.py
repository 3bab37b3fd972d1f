"""Caches of soft labels as tables for people and as records for scripts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from components.soft_labels.collecting import Unreachable
from components.soft_labels.inventory import SHOWN_ID, CacheEntry
from flows.cache_use import Usage
from flows.references import Reference

if TYPE_CHECKING:  # it imports torch
    from components.soft_labels.verifying import Finding, Verdict

_STATES = {"complete": "green", "incomplete": "yellow", "damaged": "bold red"}
_USERS_SHOWN = 4


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def counted(number: int, noun: str) -> str:
    """A number of things, in words."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def age(modified: float) -> str:
    """How long ago, in words."""
    seconds = max(time.time() - modified, 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def codec_words(record: dict[str, Any]) -> str:
    """A codec's name and settings."""
    options = " ".join(f"{key}={value}" for key, value in record.items() if key != "name")
    return f"{record.get('name')} {options}".strip()


def caches_table(caches: Sequence[CacheEntry], usage: Usage) -> Table:
    """One row a cache."""
    table = Table(box=None, pad_edge=False)
    for title in ("cache", "state", "rows", "bytes", "a row", "codec", "teacher", "data set", "used by"):
        right = title in ("rows", "bytes", "a row")
        table.add_column(title, justify="right" if right else "left", no_wrap=title != "used by", overflow="fold")
    for cache in caches:
        manifest = cache.manifest
        cells = [
            f"{manifest.rows:,}" if manifest else "",
            size(cache.bytes),
            f"{manifest.bytes / manifest.rows:.1f}" if manifest else "",
            _codec(cache),
            manifest.teacher[:SHOWN_ID] if manifest else "",
            manifest.dataset[:SHOWN_ID] if manifest else "",
        ]
        users = usage.of(cache.id)
        words = [f"{one.kind} {one.scenario if one.kind == 'workspace' else one.name}" for one in users]
        words = list(dict.fromkeys(words))
        more = [f"and {len(words) - _USERS_SHOWN} more"] if len(words) > _USERS_SHOWN else []
        state = Text(cache.state, _STATES[cache.state])
        used = Text(", ".join([*words[:_USERS_SHOWN], *more]))
        table.add_row(cache.id[:SHOWN_ID], state, *(Text(cell) for cell in cells), used)
    return table


def manifest_lines(cache: CacheEntry, usage: Usage, address: str) -> list[str]:
    """What a cache is of, how large it is, where it lies and who uses it. Lines, in which digests stay whole."""
    rows = [
        ("cache", cache.id),
        ("state", f"{cache.state}: {cache.problem}" if cache.problem else cache.state),
        ("lies in", f"{address}/{cache.key('')}"),
        ("last written", f"{age(cache.modified)} ago"),
        ("objects", f"{len(cache.objects):,}, {size(sum(entry.bytes for entry in cache.objects))} in all"),
    ]
    if manifest := cache.manifest:
        unpacked = sum(part.content_bytes for part in manifest.parts)
        rows += [
            ("format", str(manifest.format)),
            ("teacher", manifest.teacher),
            ("data set", manifest.dataset),
            ("codec", _codec(cache)),
            ("outcomes", f"{manifest.outcomes:,}"),
            ("rows", f"{manifest.rows:,}, {manifest.rows_per_part:,} a part"),
            (
                "parts",
                f"{len(manifest.parts):,}, {size(manifest.bytes)}, {manifest.bytes / manifest.rows:.1f} bytes a row",
            ),
        ]
        if manifest.compression != "none":
            rows.append(("unpacked", f"{size(unpacked)}, {unpacked / manifest.rows:.1f} bytes a row"))
        rows += [
            ("largest stored", f"{manifest.mean('top_mass'):.4f} of the teacher's mass on average"),
            ("stored singly", f"{manifest.mean('kept_mass'):.4f} of the teacher's mass on average"),
        ]
    users = [str(one) for one in usage.of(cache.id)] or ["nothing in this repository"]
    rows += [("used by" if not number else "", user) for number, user in enumerate(users)]
    return [f"{name:<17}{value}" for name, value in rows]


def parts_table(cache: CacheEntry) -> Table:
    """One row a part that the manifest names."""
    table = Table(box=None, pad_edge=False)
    table.add_column("part", no_wrap=True)
    for title in ("first row", "rows", "bytes", "largest", "singly"):
        table.add_column(title, justify="right")
    for part in cache.manifest.parts if cache.manifest else ():
        masses = (f"{part.top_mass:.4f}", f"{part.kept_mass:.4f}")
        table.add_row(part.name, f"{part.first:,}", f"{part.rows:,}", f"{part.bytes:,}", *masses)
    return table


def unreachable_line(one: Unreachable) -> str:
    """An object that can be deleted. A line and not a row of a table, which would break long keys."""
    return f"{one.entry.key}  {one.entry.bytes:,} bytes, {age(one.entry.modified)} old: {one.reason}"


def findings_table(cache: CacheEntry, findings: Sequence[Finding]) -> Table:
    """One row an object of a cache that is not as it should be."""
    table = Table(box=None, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        style = "yellow" if finding.kind == "extra" else "bold red"
        name = finding.key.removeprefix(cache.key(""))
        table.add_row(Text(finding.kind, style), Text(name), Text(finding.detail))
    return table


def cache_record(cache: CacheEntry, usage: Usage) -> dict[str, Any]:
    """A cache as it is listed, for scripts."""
    manifest = cache.manifest
    return {
        "id": cache.id,
        "state": cache.state,
        "problem": cache.problem,
        "rows": manifest.rows if manifest else None,
        "bytes": cache.bytes,
        "bytes_per_row": round(manifest.bytes / manifest.rows, 2) if manifest else None,
        "codec": manifest.codec if manifest else None,
        "compression": manifest.compression if manifest else None,
        "outcomes": manifest.outcomes if manifest else None,
        "teacher": manifest.teacher if manifest else None,
        "dataset": manifest.dataset if manifest else None,
        "modified": round(cache.modified, 3),
        "used_by": [reference_record(one) for one in usage.of(cache.id)],
    }


def reference_record(reference: Reference) -> dict[str, str]:
    """A reference, for scripts."""
    return {"kind": reference.kind, "name": reference.name, "scenario": reference.scenario}


def verdict_record(cache: CacheEntry, verdict: Verdict) -> dict[str, Any]:
    """What was found of a cache, for scripts."""
    findings = [{"key": one.key, "kind": one.kind, "detail": one.detail} for one in verdict.findings]
    checked = {"parts": verdict.parts, "bytes": verdict.bytes}
    return {"id": cache.id, "state": cache.state, **checked, "sound": verdict.sound, "findings": findings}


def unreachable_record(one: Unreachable) -> dict[str, Any]:
    """Something that can be deleted, for scripts."""
    seconds = round(max(time.time() - one.entry.modified, 0.0))
    return {"key": one.entry.key, "bytes": one.entry.bytes, "age_seconds": seconds, "reason": one.reason}


def _codec(cache: CacheEntry) -> str:
    if cache.manifest is None:
        return ""
    packed = "" if cache.manifest.compression == "none" else f" {cache.manifest.compression}"
    return codec_words(cache.manifest.codec) + packed
