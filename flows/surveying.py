"""What a retraining works on: a worktree, the data as they are now, the champion, and how the same ended before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from components.errors import IntegrityError, RecstillError, SettingsError
from components.provenance.recalls import Recall, plain_digest, recalls_of, refuse_recalled
from components.settings.scenario import Scenario
from components.storage.atomic import read_json
from components.storage.contract import ObjectStore
from components.storage.digests import record_digest
from flows.auditing.recalled import inherited, recalls_now
from flows.graph import Stage, scenario_stages
from flows.locked_outputs import lock_stages
from flows.params import assign, check_gate, read_params
from flows.repository import GitError, git, keys_of, push_remote, store_of
from flows.runs import RunRecord, read_run
from flows.trust import trusted
from flows.worktrees import bring_source, clean_commit, open_worktree, start_from, working_in

if TYPE_CHECKING:
    from components.serving.releases import Release

Say = Callable[[str], None]
RunStages = Callable[[Path, str, Sequence[Stage]], None]
"""Brings stages of a scenario up to date in a worktree, which is the current folder."""
_CODE = ("components", "dvc.yaml", "requirements.lock")


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        scenario: Of params.yaml.
        as_of: Events later than this are left out, ISO 8601; None: the last midnight (UTC) where params.yaml names an
            instant, else all events.
        warm: Start the teacher from the champion's; None: as ``retraining.warm_start`` says.
        force: Go on although nothing has moved, or a gate has refused the same before.
    """

    scenario: str
    as_of: str | None = None
    warm: bool | None = None
    force: bool = False


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        name: Of the scenario.
        checkout: The user's.
        tree: The worktree; ingested and prepared.
        store: The checkout's.
        commit: What the worktree was made from.
        changes: Assignments to its params.yaml.
        settings: The scenario with them.
        prepared: The stages that have made the data set.
        rest: All others of it.
        champion: The release that is live.
        key: Identifies data, parameters and code.
        dataset: ``dataset.json``.
        source: ``source.json``.
        record: How the same ended before.
    """

    name: str
    checkout: Path
    tree: Path
    store: ObjectStore
    commit: str
    changes: tuple[str, ...]
    settings: Scenario
    prepared: tuple[Stage, ...]
    rest: tuple[Stage, ...]
    champion: Release | None
    key: str
    dataset: dict[str, Any]
    source: dict[str, Any]
    record: RunRecord | None

    @property
    def artifacts(self) -> Path:
        """``artifacts/<scenario>`` of the worktree."""
        return self.tree / "artifacts" / self.name

    @property
    def champion_version(self) -> int | None:
        """Version that is live."""
        return self.champion.version if self.champion else None


def survey(checkout: Path, request: Request, run_stages: RunStages, say: Say) -> Survey:
    """Make the worktree and look at the data. The caller holds the scenario's lock.

    Args:
        checkout: The user's checkout, the current folder.
        request: What is asked for.
        run_stages: How stages are run.
        say: Takes lines for whoever watches.

    Raises:
        RecalledError: The data set, or its source, is recalled: nothing that is made of it could go live.
        RecstillError: A dirty tree, an unpushed commit, an unknown scenario, a store or source that does not answer.
    """
    name = request.scenario
    commit = clean_commit(checkout)
    store = store_of(checkout)
    committed = read_params(checkout).scenario(name)
    check_gate(committed)
    champion, latest = champion_and_latest(checkout, store, name)
    warm = committed.retraining.warm_start if request.warm is None else request.warm
    recalls = recalls_now(checkout, store).recalls
    changes = _changes(committed, request, _warm_start(store, champion, recalls, say) if warm else None)
    tree = make_tree(checkout, name, commit, changes=changes, latest=latest, source=committed.source.path)
    with working_in(checkout, tree):
        stages = scenario_stages(tree, name)
        prepared = _until_dataset(tree, stages)
        run_stages(tree, name, prepared)
    dataset, source = (read_json(tree / "artifacts" / name / file) for file in ("dataset/dataset.json", "source.json"))
    _refuse_recalled_data(tree, name, prepared, (dataset, source), recalls)
    key = run_key(checkout, commit, str(dataset["digest"]), committed, warm=warm)
    say(
        f"{name}: {dataset['events']:,} events of {dataset['users']:,} users and {dataset['items']:,} items, "
        f"{source['first_event']} to {source['last_event']}; run {key[:12]}"
    )
    return Survey(
        name=name,
        checkout=checkout,
        tree=tree,
        store=store,
        commit=commit,
        changes=changes,
        settings=read_params(tree).scenarios[name],
        prepared=tuple(prepared),
        rest=tuple(stage for stage in stages if stage not in prepared),
        champion=champion,
        key=key,
        dataset=dataset,
        source=source,
        record=read_run(store, name, key, trusted(checkout)),
    )


def make_tree(
    checkout: Path, scenario: str, commit: str, *, changes: Sequence[str], latest: Release | None, source: str
) -> Path:
    """The worktree of a commit with changed parameters, the lock of the latest version, and the source's files."""
    tree = open_worktree(checkout, scenario, commit)
    start_from(checkout, tree, latest.commit if latest else None)
    bring_source(checkout, tree, source)
    assign(tree, changes)
    return tree


def champion_and_latest(checkout: Path, store: ObjectStore, name: str) -> tuple[Release | None, Release | None]:
    """The release that is live, and the one that was registered last.

    Raises:
        IntegrityError: A release is not what its attestation says.
        StorageError: The store cannot be read.
    """
    from components.provenance.signing import trusted_keys
    from components.serving.pointer import current
    from components.serving.releases import read_release, versions

    numbers = versions(store, name)
    if not numbers:
        return None, None
    keys = trusted_keys(keys_of(checkout))
    live = current(store, name, keys)
    latest = read_release(store, name, max(numbers), keys)
    if live is None:
        _bring_commits(checkout, name, latest)
        return None, latest
    champion = latest if live.version == latest.version else read_release(store, name, live.version, keys)
    if champion.attestation != live.attestation:
        raise IntegrityError(
            f"{champion} is not the release that was made live", "`recstill deploy` a version that is right."
        )
    _bring_commits(checkout, name, latest, champion)
    return champion, latest


def _bring_commits(checkout: Path, name: str, *releases: Release) -> None:
    """Fetch the commits of releases that another checkout has registered.

    Raises:
        GitError: They are nowhere to be had.
    """
    from flows.registry import fetch_tags

    def absent() -> list[Release]:
        found = []
        for release in releases:
            try:
                git(checkout, "cat-file", "-e", f"{release.commit}^{{commit}}")
            except GitError:
                found.append(release)
        return found

    if absent() and push_remote(checkout):
        fetch_tags(checkout, name)
    if missing := absent():
        raise GitError(
            f"{missing[0]} was registered from commit {missing[0].commit[:12]}, which this repository does not have",
            "Fetch it from where the version was registered: its tag names it.",
        )


def run_key(checkout: Path, commit: str, dataset: str, committed: Scenario, *, warm: bool) -> str:
    """What identifies a run: 64 hexadecimal digits. Two days with the same data have the same.

    Args:
        checkout: A checkout of the repository.
        commit: Whose code runs.
        dataset: Digest of the data set.
        committed: The scenario in params.yaml of the commit.
        warm: Is the teacher to start warm? From which one does not count: the last one changes with every version.
    """
    document = committed.model_dump(mode="json")
    document["source"].pop("as_of")  # what it selects is in the data set
    code = git(checkout, "ls-tree", commit, "--", *_CODE)
    return record_digest({"dataset": dataset, "params": document, "warm": warm, "code": code.splitlines()})


def _changes(committed: Scenario, request: Request, warm_start: str | None) -> tuple[str, ...]:
    prefix = f"scenarios.{request.scenario}"
    changes = []
    if request.as_of is not None:
        changes.append(f"{prefix}.source.as_of='{_instant(request.as_of)}'")
    elif committed.source.as_of is not None:
        changes.append(f"{prefix}.source.as_of='{datetime.now(UTC):%Y-%m-%dT00:00:00Z}'")
    if warm_start:
        changes.append(f"{prefix}.teacher.warm_start='{warm_start}'")
    return tuple(changes)


def _instant(text: str) -> str:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SettingsError(
            f"as_of {text!r} is no date", "Write it as 2026-03-01, or 2026-03-01T12:00:00Z; without a zone it is UTC."
        ) from None
    in_utc = found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    return in_utc.isoformat().replace("+00:00", "Z")


def _refuse_recalled_data(
    tree: Path, name: str, prepared: Sequence[Stage], records: Sequence[dict[str, Any]], recalls: Sequence[Recall]
) -> None:
    """Refuse data that are recalled, by their own digests or by the MD5s of their files, their source or their code."""
    locked = lock_stages(tree)
    ids = {str(record[field]) for record in records for field in ("digest", "source_digest") if record.get(field)}
    files = (one for stage in prepared for kind in ("deps", "outs") for one in locked[stage.address].get(kind) or ())
    ids |= {plain_digest(str(one["md5"])) for one in files if "md5" in one}
    refuse_recalled(f"what {name} would be trained on", recalls_of(ids, recalls))


def _warm_start(store: ObjectStore, champion: Release | None, recalls: Sequence[Recall], say: Say) -> str | None:
    from components.training.teacher_store import has_teacher

    digest = champion.lineage.get("teacher") if champion else None
    if champion is None:
        say("the teacher starts anew: no version is live that it could start from")
    elif found := inherited(store, champion, recalls):
        say(f"the teacher starts anew: v{champion.version} is recalled ({found[0]})")
        return None
    elif not digest or not has_teacher(store, digest):
        say(f"the teacher starts anew: that of v{champion.version} is not in {store.address}")
        return None
    else:
        say(f"the teacher starts from that of v{champion.version}, {digest[:12]}")
    return digest


def _until_dataset(tree: Path, stages: Sequence[Stage]) -> list[Stage]:
    """The stage that makes the data set, and all that it needs."""
    document = yaml.safe_load((tree / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    makers = {name for name, body in document.items() if "artifacts/${key}/dataset" in (body["do"].get("outs") or ())}
    needed = {stage.address for stage in stages if stage.name in makers}
    if not needed:
        raise RecstillError("no stage of dvc.yaml makes artifacts/<scenario>/dataset", "Check dvc.yaml.")
    for stage in reversed(stages):
        if stage.address in needed:
            needed.update(stage.upstream)
    return [stage for stage in stages if stage.address in needed]
