"""A chain as a person reads it on a terminal, and as a document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text
from rich.tree import Tree

from flows.auditing.lineage import Link, Node, Trace
from flows.auditing.subject import Subject

_SHOWN = 12
_FIGURES = 6
_WIDE = 110
_DIGITS = 4


def tree_of(trace: Trace) -> Tree:
    """The chain as a tree: each run once, below the one that is nearest to what was asked about by the longest way."""
    subject = trace.subject
    root = Tree(Text.assemble((subject.what, "bold"), (f"  {subject.weak}" if subject.weak else "", "yellow")))
    for note in trace.notes:
        root.add(Text(f"! {note}", "yellow"))
    everywhere = set.intersection(*(set(node.labels) for node in trace.nodes)) if len(trace.nodes) > 1 else set()
    for label in sorted(everywhere):
        root.add(Text(f"! all of the chain: {label}", "yellow"))
    parents, settings = _parents(trace), _settings(trace)
    branches: dict[int, Tree] = {}
    for node in trace.nodes:
        above = parents.get(id(node))
        branch = (branches[id(above)] if above is not None else root).add(_head(node))
        branches[id(node)] = branch
        _lines(branch, node, settings[id(node)], [label for label in node.labels if label not in everywhere])
        for link in node.links:
            if link.node is None:
                branch.add(Text.assemble((link.path, "bold"), f"  {_short(link.md5)}  ", ("source", "dim")))
    return root


def document_of(trace: Trace) -> dict[str, Any]:
    """The chain as a JSON-able record."""
    numbers = {id(node): number for number, node in enumerate(trace.nodes)}
    return {
        "asked": subject_record(trace.subject),
        "chain": [_record(node, numbers) for node in trace.nodes],
        "sources": [{"path": link.path, "md5": link.md5} for link in _distinct(trace.sources)],
        "recalls": [recall.record() for recall in trace.recalls],
        "notes": trace.notes,
    }


def subject_record(subject: Subject) -> dict[str, Any]:
    """What was asked about, as a JSON-able record."""
    return {
        "text": subject.text,
        "what": subject.what,
        "kind": subject.kind,
        "weak": subject.weak,
        "ids": sorted(subject.ids),
        "made": [{"path": path, "md5": md5} for path, md5 in subject.made],
        "release": str(subject.release) if subject.release else None,
    }


def shown_metrics(metrics: Mapping[str, Any]) -> str:
    """The first figures of a stage in a line."""
    figures = [(key, value) for key, value in metrics.items() if isinstance(value, int | float)]
    return ", ".join(f"{key} {_number(value)}" for key, value in figures[:_FIGURES])


def size_of(count: int | None) -> str:
    """Bytes for people."""
    if count is None:
        return ""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def _parents(trace: Trace) -> dict[int, Node]:
    """The run that each run is shown below: the one with the longest way from what was asked about."""
    depth: dict[int, int] = {}
    parents: dict[int, Node] = {}
    for node in trace.nodes:  # each before what it was made of
        for link in node.links:
            if link.node is not None and depth.get(id(link.node), -1) < depth.get(id(node), 0) + 1:
                depth[id(link.node)] = depth.get(id(node), 0) + 1
                parents[id(link.node)] = node
    return parents


def _settings(trace: Trace) -> dict[int, dict[str, Any]]:
    """The parameters of each run that none before it has read already."""
    seen: dict[str, str] = {}
    found: dict[int, dict[str, Any]] = {}
    for node in reversed(trace.nodes):
        own = {key: value for key, value in node.run.settings.items() if seen.get(key) != repr(value)}
        found[id(node)] = own
        seen |= {key: repr(value) for key, value in own.items()}
    return found


def _head(node: Node) -> Text:
    state = "red" if node.recalls else ""
    text = Text.assemble((node.role, f"bold {state}".strip()))
    largest = max(node.made, key=lambda made: made.bytes or 0, default=None)
    if node.digest:
        text.append(f"  {node.digest[:_SHOWN]}", "cyan")
    if largest is not None:
        text.append(f"  md5 {_short(largest.md5)}", "dim")
        text.append(f"  {size_of(largest.bytes)}")
    text.append(f"  {node.run.address}", "dim")
    if node.versions:
        text.append(f"  {', '.join(node.versions)}", "green")
    return text


def _lines(branch: Tree, node: Node, settings: Mapping[str, Any], labels: Sequence[str]) -> None:
    statement = node.statement
    origin = []
    if statement and statement.commit:
        origin.append(f"ran on {statement.commit[:_SHOWN]}")
    if node.commit:
        origin.append(f"recorded in {node.commit.id[:_SHOWN]} by {node.commit.who}, {_when(node.commit.at)}")
    if statement:
        ran = f"by {statement.who}" + (f", {_when(statement.finished)}" if statement.finished else "")
        origin.append(f"{'attested' if statement.attached != 'afterwards' else 'described'} {ran}")
    if origin:
        branch.add(Text("; ".join(origin), "dim"))
    if settings:
        branch.add(Text(_cut(", ".join(_flat(settings))), "dim"))
    if node.metrics and (figures := shown_metrics(node.metrics)):
        branch.add(Text(figures))
    read = [link for link in node.links if link.node is not None]
    if len(read) > 1:
        branch.add(Text("from " + ", ".join(dict.fromkeys(_name(link) for link in read)), "dim"))
    for recall in node.recalls:
        branch.add(Text(f"RECALLED by {recall.who}, {_when(recall.at)}: {recall.reason}", "bold red"))
    for label in labels:
        branch.add(Text(f"! {label}", "yellow"))
    for path, places in node.where.items():
        branch.add(Text(f"{path}: {', '.join(places) or 'nowhere: the bytes are gone'}", "" if places else "bold red"))


def _record(node: Node, numbers: Mapping[int, int]) -> dict[str, Any]:
    statement, commit = node.statement, node.commit
    return {
        "id": numbers[id(node)],
        "role": node.role,
        "stage": node.run.stage,
        "scenario": node.run.scenario,
        "entry": node.run.entry,
        "digest": node.digest,
        "outputs": [
            {"path": made.path, "md5": made.md5, "bytes": made.bytes, "sha256": made.sha256} for made in node.made
        ],
        "inputs": [
            {"path": link.path, "md5": link.md5, "from": numbers[id(link.node)] if link.node else None}
            for link in node.links
        ],
        "params": node.run.settings,
        "metrics": dict(node.metrics),
        "recorded": {"in": str(node.lock), **(commit._asdict() if commit else {})},
        "commit": statement.commit if statement else None,
        "dirty": statement.dirty if statement else None,
        "who": statement.who if statement else None,
        "started": statement.started if statement else None,
        "finished": statement.finished if statement else None,
        "attached": statement.attached if statement else None,
        "signed_by": statement.signed_by if statement else None,
        "versions": node.versions,
        "recalls": [recall.record() for recall in node.recalls],
        "labels": node.labels,
        "where": node.where,
    }


def _name(link: Link) -> str:
    return link.node.role if link.node is not None else link.path


def _distinct(links: list[Link]) -> list[Link]:
    return list({(link.path, link.md5): link for link in links}.values())


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append(f"{prefix}{key} {_number(value) if isinstance(value, int | float) else value}")
    return found


def _cut(text: str) -> str:
    if len(text) <= 2 * _WIDE:
        return text
    short = text[: 2 * _WIDE].rpartition(",")[0]
    return f"{short}, and {text[len(short) :].count(', ')} more (--json)"


def _number(value: float) -> str:
    return f"{value:.{_DIGITS}g}" if isinstance(value, float) else str(value)


def _short(digest: str) -> str:
    return digest.removesuffix(".dir")[:_SHOWN]


def _when(text: str) -> str:
    return text[:16].replace("T", " ")
