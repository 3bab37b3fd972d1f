"""``dvc.yaml`` as a list of stages that can be run one by one.

The only module that touches DVC's internal API (DVC 3.67 is pinned for that reason). DVC decides whether a stage has
to run and records what it made; whoever calls ``reproduce`` decides when.

The checkout has to be the current folder of the process, since DVC resolves addresses and ``.gitignore`` against that:
``flows.repository.enter_checkout`` sees to it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import networkx
from dvc import dvcfile
from dvc.exceptions import DvcException
from dvc.repo import Repo, lock_repo
from dvc.stage.exceptions import StageCmdFailedError

from components.data.subject_key import LOCAL_KEY, SUBJECT_VARIABLE
from components.errors import RecstillError
from components.settings.base import nearest
from flows.lock_text import modifying_records
from flows.repository import keys_of

Outcome = Literal["ran", "cached", "skipped"]

dvcfile.modify_yaml = modifying_records(dvcfile.modify_yaml)


@dataclass(frozen=True)
class Stage:
    """One stage of one scenario.

    Attributes:
        address: DVC's name of it, such as ``distill@movielens``.
        description: Its ``desc`` in dvc.yaml.
        upstream: Addresses of the stages whose outputs it reads.
    """

    address: str
    description: str
    upstream: tuple[str, ...]

    @property
    def name(self) -> str:
        """The part of the address that is the same for every scenario."""
        return self.address.partition("@")[0]

    @property
    def scenario(self) -> str:
        """Whose stage it is."""
        return self.address.partition("@")[2]


@dataclass(frozen=True)
class StageResult:
    """How a stage ended.

    Attributes:
        address: DVC's name of the stage.
        outcome: ``ran``; ``cached``: up to date, or its outputs were taken from DVC's cache; ``skipped``: not tried.
        started: When, in seconds since 1970.
        seconds: Wall time, with what DVC adds to it.
        own_seconds: Wall time of the stage's own process, 0 unless it ran.
    """

    address: str
    outcome: Outcome
    started: float = 0.0
    seconds: float = 0.0
    own_seconds: float = 0.0


class StageError(RecstillError):
    """A stage ended with an error of its own, which it has already explained."""


def scenario_stages(root: Path, scenario: str) -> list[Stage]:
    """All stages of a scenario, each after the stages that it reads from, other scenarios' among them.

    Raises:
        RecstillError: There is no such scenario, or dvc.yaml cannot be read.
    """
    with _repo(root) as repo:
        graph = repo.index.graph
        own = [stage for stage in graph if stage.addressing.partition("@")[2] == scenario]
        if not own:
            known = {stage.addressing.partition("@")[2] for stage in graph}
            raise RecstillError(f"unknown scenario {scenario!r}; {nearest(scenario, list(known))}")
        needed = set(own).union(*(networkx.descendants(graph, stage) for stage in own))
        # DVC's edges lead from a stage to what it reads; ties are broken by the order in dvc.yaml.
        order = {stage.addressing: number for number, stage in enumerate(repo.index.stages)}
        readers_last = networkx.lexicographical_topological_sort(
            graph.subgraph(needed).reverse(), key=lambda stage: order[stage.addressing]
        )
        return [
            Stage(
                address=stage.addressing,
                description=stage.desc or "",
                upstream=tuple(sorted(before.addressing for before in graph.successors(stage))),
            )
            for stage in readers_last
        ]


def pending(root: Path, stages: list[Stage]) -> dict[str, list[str]]:
    """Why each stage that is not up to date would run, in words; up-to-date stages are left out."""
    wanted, status = {stage.address for stage in stages}, {}
    with _repo(root) as repo, lock_repo(repo):
        # The index has read dvc.lock once; `repo.status` would read it again for every target.
        for stage in repo.index.stages:
            if stage.addressing in wanted:
                status.update(stage.status(check_updates=True))
    reasons = {address: _reasons(entries) for address, entries in status.items()}
    # DVC compares files with its record: it cannot know yet what a stage that has to run will make of them.
    for stage in stages:
        waited_for = [address for address in stage.upstream if address in reasons]
        if waited_for and stage.address not in reasons:
            reasons[stage.address] = [f"{' and '.join(waited_for)} has to run"]
    return reasons


def reproduce(root: Path, address: str, *, force: bool = False, plain_progress: bool = False) -> tuple[Outcome, float]:
    """Bring one stage up to date; its upstream stages must be.

    Args:
        root: The checkout.
        address: The stage.
        force: Run it even when nothing has changed.
        plain_progress: Ask it for lines instead of a live display, since other stages run beside it.

    Returns:
        The outcome, and the seconds that the stage's own process took.

    Raises:
        StageError: The stage failed; the message is its own.
        RecstillError: DVC could not run it.
    """
    with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
        note = Path(folder) / "stage.json"
        environment = {"RECSTILL_STAGE_NOTE": str(note), **_subject_key(root)}
        if plain_progress:
            environment["TTY_COMPATIBLE"] = "0"  # how rich is told that this is no terminal
        try:
            with _repo(root) as repo:
                done = repo.reproduce(address, single_item=True, force=force, run_env=environment)
        except StageError as failure:
            raise StageError(_noted(note).get("error") or failure.message) from None
        ran = _noted(note)
    return ("ran" if done and ran else "cached"), float(ran.get("seconds", 0.0))


def tracked_contents(root: Path, hashes: Collection[str]) -> dict[str, bytes]:
    """Contents of files that DVC tracks, by their MD5: from its cache, or else from the default remote.

    What neither has, or has damaged, or cannot be asked for, is left out.
    """
    found: dict[str, bytes] = {}
    try:
        with _repo(root) as repo:
            for where in (lambda: repo.cache.local, lambda: repo.cloud.get_remote_odb(command="fetch")):
                for md5 in set(hashes) - set(found):
                    # A remote's library raises what it likes, from "no remote" to "no credentials".
                    with suppress(Exception):
                        store = where()
                        content = store.fs.cat_file(store.oid_to_path(md5))
                        if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5:
                            found[md5] = content
    except RecstillError:  # no repository of DVC: nothing is tracked
        return found
    return found


def _subject_key(root: Path) -> dict[str, str]:
    """The checkout's own key that names people, for stages of a worktree, which cannot see it."""
    path = keys_of(root) / LOCAL_KEY
    return {SUBJECT_VARIABLE: str(path.resolve())} if not os.environ.get(SUBJECT_VARIABLE) and path.is_file() else {}


def _noted(note: Path) -> dict[str, Any]:
    return json.loads(note.read_text(encoding="utf-8")) if note.is_file() else {}


@contextmanager
def _repo(root: Path) -> Iterator[Any]:
    """A DVC repo of one's own, since a shared one breaks under threads; it waits for locks: stages can run at once."""
    # DVC tells what it does stage by stage; here the flow does.
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        repo = Repo(str(root), _wait_for_lock=True)
    except DvcException as error:
        raise RecstillError(_explained(error), "Check dvc.yaml and the .dvc folder of this checkout.") from None
    try:
        yield repo
    except DvcException as error:
        raise _translated(error) from None
    finally:
        repo.close()


def _translated(error: Exception) -> RecstillError:
    if isinstance(error.__cause__, StageCmdFailedError):
        return StageError(_explained(error.__cause__))
    return RecstillError(_explained(error), "`recstill status` shows the state of every stage.")


def _explained(error: BaseException) -> str:
    """The messages of an exception and its causes, once each, in one line."""
    messages: list[str] = []
    current: BaseException | None = error
    while current is not None:
        text = " ".join(str(current).split())
        if text and not any(text in known for known in messages):
            messages.append(text)
        current = current.__cause__
    return ": ".join(messages)


def _reasons(entries: list[Any]) -> list[str]:
    """DVC's status of one stage in short phrases; what is missing since the stage never ran is not listed."""
    changes = [
        (kind, path, state)
        for entry in entries
        if isinstance(entry, dict)
        for kind, paths in entry.items()
        for path, state in paths.items()
    ]
    if any(path == "params.yaml" and state == "new" for _, path, state in changes):
        return ["it has not run yet"]
    phrases = [entry for entry in entries if isinstance(entry, str)]
    for kind, path, state in changes:
        if isinstance(state, dict):
            phrases += [f"{key} {change}" for key, change in state.items()]
        elif kind == "changed outs" or state != "deleted":
            phrases.append(f"{path} {state}")
    return phrases or ["a stage before it has to run"]
