"""Where bytes come from: the chain by content, from what was asked about back to the source.

A node is one run of one stage. It is known by its record in a lock; a signed statement vouches for it, or does not, and
then the node says so. Nothing that makes the chain weaker is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import RecstillError, SettingsError
from components.storage.object_store import STORE_VARIABLE
from flows.auditing.local_bytes import LocalBytes
from flows.auditing.lock_history import Commit, Lock, LockHistory
from flows.auditing.lock_parsing import ARTIFACTS, StageRun
from flows.auditing.records import FIGURES, Recorded, Records, kind_of, of_statements, output_of_kind, role_of
from flows.auditing.shelf import Shelf, Shelved
from flows.repository import enter_checkout, keys_of, store_of

if TYPE_CHECKING:
    from components.provenance.recalls import Recall
    from components.provenance.stage_run import StageStatement
    from components.storage.contract import ObjectStore
    from flows.auditing.resolving import Subject

_METRICS = "metrics"


@dataclass(eq=False)
class Made:
    """Something that a run made and that the chain uses.

    Attributes:
        path: From the checkout's root.
        md5: As the lock names it.
        bytes: Its size; None: not recorded.
        sha256: Of a file, where a statement tells it.
    """

    path: str
    md5: str
    bytes: int | None
    sha256: str | None


@dataclass(eq=False)
class Link:
    """Something that a run read.

    Attributes:
        path: Where.
        md5: What; the digest of a teacher where it is named by that.
        node: What made it; None: nothing that is known, or it is a source.
    """

    path: str
    md5: str
    node: Node | None


@dataclass(eq=False)
class Node:
    """One run of the chain.

    Attributes:
        run: Its record.
        lock: Where it was read.
        role: What it makes, in a word.
        digest: Of what it made as a whole, such as that of a teacher; None: not known here.
        made: What of it the chain uses.
        links: What it read.
        statement: What was attested; None: nothing.
        commit: The commit that brought the record first.
        metrics: Its figures.
        labels: What makes it weaker than a signed record of a clean run, in words.
        recalls: Those that name it.
        versions: Registered versions whose lock has it.
        where: Where its bytes are, by path, when that was asked for.
    """

    run: StageRun
    lock: Lock
    role: str
    digest: str | None = None
    made: list[Made] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    statement: StageStatement | None = None
    commit: Commit | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    recalls: list[Recall] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    where: dict[str, list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.role} ({self.run.address})"


@dataclass(eq=False)
class Trace:
    """The chain.

    Attributes:
        subject: What was asked about.
        nodes: Those that made it first, each before what it was made of.
        notes: What has to be known of the whole.
        recalls: All that anything in it is recalled by, or that the release inherits which was asked about.
    """

    subject: Subject
    nodes: list[Node]
    notes: list[str]
    recalls: list[Recall] = field(default_factory=list)

    @property
    def ends(self) -> list[Node]:
        """The runs that made what was asked about."""
        used = {id(link.node) for node in self.nodes for link in node.links}
        return [node for node in self.nodes if id(node) not in used]

    @property
    def sources(self) -> list[Link]:
        """What was read and made by nobody."""
        return [link for node in self.nodes for link in node.links if link.node is None]


class Lineage:
    """All that a checkout and its store know about origin.

    Args:
        root: The checkout; it need not be in a repository.
        store: Its store.
    """

    def __init__(self, root: Path, store: ObjectStore | None = None) -> None:
        from components.provenance.signing import trusted_keys

        self.root = root
        self.notes: list[str] = []
        try:
            keys = trusted_keys(keys_of(root))
        except SettingsError as error:
            keys = ()
            self.notes.append(f"{error.message}: nothing counts as attested")
        self.shelf = Shelf(store_of(root) if store is None else store, keys)
        self.history = LockHistory.read(root)
        self.notes += self.history.notes
        self.records = Records(self.history)
        self.local = LocalBytes(root)

    @cached_property
    def recalls(self) -> tuple[Recall, ...]:
        """The recalls in force; a log that cannot be read is told in ``notes``."""
        try:
            return self.shelf.recalls
        except RecstillError as error:
            self.notes.append(f"what is recalled is not known: {error.message}")
            return ()

    def lock_of(self, release: Shelved) -> Lock | None:
        """The lock that a release was made of; without its commit, what its signed statements stand for."""
        lock = self.history.at([release.commit])[release.commit] if release.commit else None
        if lock is None:
            lock = of_statements(self.shelf.bundled(release), f"the signed statements of {release}")
        self.records.add(lock)
        return lock

    def use_statements(self, *digests: str) -> bool:
        """Take in the signed statements that name a digest, as runs; whether there are any."""
        lock = of_statements(self.shelf.statements(*digests), "the signed statements of the store")
        self.records.add(lock)
        return lock is not None

    def trace(self, subject: Subject, *, warm_starts: bool = False) -> Trace:
        """The chain of what was asked about.

        Args:
            subject: What was asked about.
            warm_starts: Follow the chains of the teachers that teachers have started from; there is one a version.
        """
        notes = [*subject.notes]
        building = _Building(self, subject, warm_starts)
        for path, md5 in subject.made:
            makers = self.records.makers(md5, path, first=subject.lock)
            if makers:
                building.node(makers[0], path, md5)
            if len({one.run.entry for one in makers}) > 1 and subject.lock is None:
                others = ", ".join(sorted({str(one.lock) for one in makers[1:4]}))
                notes.append(f"the same bytes were made by other runs too, for instance in {others}")
        nodes = building.ordered()
        recalls = {recall.number: recall for node in nodes for recall in node.recalls}
        release = subject.release
        if release is not None and release.package in subject.ids:
            for recall in self.shelf.inherited(release, self.recalls):
                if recalls.setdefault(recall.number, recall) is recall:
                    notes.append(f"{release} is recalled: {recall}")
        every = [*dict.fromkeys([*notes, *building.notes, *self.notes])]
        return Trace(subject, nodes, every, [recalls[number] for number in sorted(recalls)])


def place() -> Path:
    """The checkout around the current folder, which becomes the current one; or this folder, where a store is all.

    Raises:
        RecstillError: There is neither a checkout nor a store.
    """
    try:
        return enter_checkout()
    except RecstillError:
        here = Path.cwd()
        if os.environ.get(STORE_VARIABLE) or (here / ".recstill" / "store").is_dir():
            return here
        raise


class _Building:
    """A chain on its way."""

    def __init__(self, lineage: Lineage, subject: Subject, warm_starts: bool) -> None:
        self._lineage, self._subject, self._warm_starts = lineage, subject, warm_starts
        self._nodes: dict[str, Node] = {}
        self.notes: list[str] = []

    def node(self, found: Recorded, path: str, md5: str, *, further: bool = True) -> Node:
        """The node of a run, and of everything that it was made of, unless nothing further is asked for."""
        run = found.run
        node = self._nodes.get(run.entry)
        if node is None:
            # An older record of the same run tells where it comes from; the inputs are looked for beside this one.
            node = self._nodes[run.entry] = Node(run, found.lock, role_of(run))
            self._describe(node)
            self._uses(node, path, md5)
            for name, one in run.inputs.items() if further else ():
                node.links.append(self._link(node, name, one))
            if run.warm_start and further:
                node.links.append(self._warm(node, run.warm_start))
        self._uses(node, path, md5)
        return node

    def ordered(self) -> list[Node]:
        """Each node before what it was made of."""
        order: list[Node] = []
        done: set[int] = set()

        def visit(node: Node) -> None:
            if id(node) in done:
                return
            done.add(id(node))
            for link in node.links:
                if link.node is not None:
                    visit(link.node)
            order.append(node)

        for node in list(self._nodes.values()):
            visit(node)
        for node in order:
            self._name(node)
        return order[::-1]

    def _link(self, node: Node, path: str, md5: str) -> Link:
        made = path.startswith(ARTIFACTS)
        maker = self._lineage.records.maker(md5, path, node.lock) if made else None
        if maker and maker.lock is not node.lock and node.run.entry != maker.run.entry:
            node.labels.append(f"{path} is not what the same lock says was made; it was found in {maker.lock}")
        if made and not maker:
            node.labels.append(f"nobody has recorded how {path} was made")
        return Link(path, md5, self.node(maker, path, md5) if maker else None)

    def _warm(self, node: Node, teacher: str) -> Link:
        """The teacher that training started from, which is named by its digest."""
        for release in self._lineage.shelf.releases:
            kind = next((kind for kind, digest in release.lineage.items() if digest == teacher), None)
            lock = self._lineage.lock_of(release) if kind else None
            if kind and lock and (found := output_of_kind(_of(lock, release.name), kind)):
                run, path, md5 = found
                before = self.node(Recorded(run, lock), path, md5, further=self._warm_starts)
                if not self._warm_starts:
                    before.labels.append(
                        f"an earlier {kind} that training started from; --warm-starts follows its chain"
                    )
                return Link(f"warm start from {kind} of {release}", teacher, before)
        node.labels.append(f"started warm from {teacher[:12]}, and nobody knows how that was made")
        return Link("warm start", teacher, None)

    def _uses(self, node: Node, path: str, md5: str) -> None:
        name = path if node.run.outputs.get(path) == md5 else _name(node.run, md5, path)
        if any(one.path == name for one in node.made):
            return
        subject = node.statement.subjects.get(name) if node.statement else None
        node.made.append(Made(name, md5, node.run.sizes.get(name), subject.sha256 if subject else None))

    def _describe(self, node: Node) -> None:
        shelf = self._lineage.shelf
        node.statement, problem = shelf.statement(node.run)
        first = self._lineage.records.first(node.run)
        node.commit = (first or node.lock).committed
        node.versions = (node.lock.versions or (first.versions if first else []))[:1]
        node.metrics = (node.statement.metrics if node.statement else None) or self._figures(node.run)
        node.labels += self._labels(node, problem)

    def _name(self, node: Node) -> None:
        """What it makes in a word, now that it is known what of it is used; its digest, and what recalls that."""
        used = [made for made in node.made if kind_of(made.path) not in FIGURES]
        if used:
            node.role = kind_of(max(used, key=lambda made: made.bytes or 0).path)
        node.digest = self._digest(node)
        run, statement = node.run, node.statement
        # What another run of the chain has made is recalled there; the rest of what was read and run counts here.
        elsewhere = {link.path for link in node.links if link.node is not None}
        read = {path: md5 for path, md5 in run.inputs.items() if path not in elsewhere}
        ids = {md5.removesuffix(".dir") for md5 in (*run.outputs.values(), *run.code.values(), *read.values())}
        ids |= {link.md5 for link in node.links if link.node is None}
        if statement:
            ids |= {digest for one in statement.subjects.values() for digest in (one.sha256, one.md5)}
            ids |= {*statement.digests.values(), *statement.byproducts.values()}
            ids |= {sha256 for path, sha256 in statement.input_sha256.items() if path not in elsewhere}
        ids |= {node.digest} if node.digest else set()
        node.recalls = [recall for recall in self._lineage.recalls if recall.digests & ids]

    def _labels(self, node: Node, problem: str) -> list[str]:
        labels, statement = [], node.statement
        if statement is None:
            labels.append("not attested")
        else:
            if problem:
                labels.append(f"signature not trusted: {problem}")
            if statement.attached == "afterwards":
                labels.append("attached afterwards")
            if statement.dirty:
                labels.append("dirty tree: code was in no commit")
            if (
                len(statement.commit) == 40
                and not self._lineage.history.has_commits([statement.commit])[statement.commit]
            ):
                labels.append(f"commit {statement.commit[:12]} not in this repository")
        if node.lock.where and not node.commit:
            labels.append("in no commit yet")
        return labels

    def _digest(self, node: Node) -> str | None:
        """What the outputs are as a whole: from the statement, else from records that lie here or a release."""
        kinds = [node.role, *dict.fromkeys(kind_of(made.path) for made in node.made)]
        if node.statement and (
            known := [node.statement.digests[kind] for kind in kinds if kind in node.statement.digests]
        ):
            return known[0]
        for run in node.lock.stages:
            if run.scenario == node.run.scenario and not node.statement:
                for path, md5 in run.outputs.items():
                    if path.endswith("/lineage.json"):
                        told = self._lineage.local.document(md5, path)
                        if isinstance(told, dict) and node.role in told:
                            return str(told[node.role])
        release = self._subject.release
        if release is not None and release.name == node.run.scenario and node.lock is self._subject.lock:
            return {"package": release.package, **release.lineage}.get(node.role)
        return None

    def _figures(self, run: StageRun) -> Mapping[str, Any]:
        for path, md5 in run.outputs.items():
            if kind_of(path) == _METRICS and path.endswith(".json"):
                found = self._lineage.local.document(md5, path)
                if isinstance(found, dict):
                    return found
        return {}


def _of(lock: Lock, scenario: str) -> list[StageRun]:
    return [run for run in lock.stages if run.scenario == scenario]


def _name(run: StageRun, md5: str, path: str) -> str:
    return next((name for name, one in run.outputs.items() if one == md5), path)
