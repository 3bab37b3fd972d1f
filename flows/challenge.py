"""The challenger of a finished run against the version that is live: drift of the data, and the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.errors import IntegrityError
from components.evaluation.challenger_gate import Contest, Evidence, judge
from components.evaluation.drift import Drift, drift_between
from components.serving.holdout import score
from components.serving.package_folder import RECORD
from components.serving.releases import Release, fetch_release
from components.storage.atomic import read_json
from components.storage.digests import file_digest
from components.tasks.building import open_task, task_class, task_of
from components.tasks.contract import Dataset
from flows.auditing.erased_objects import receipts_now
from flows.surveying import Survey

_CHAMPION = ".recstill/champion"


def champion_dataset(found: Survey) -> Dataset | None:
    """The data that the champion was made from; None when no version is live, or they were erased because of a person.

    Raises:
        IntegrityError: They are nowhere to be had, or are not those that the champion's package names.
        StorageError: DVC's remote cannot be read.
    """
    from flows.dvc_remote import restore_output

    champion = found.champion
    if champion is None:
        return None
    folder = found.tree / _CHAMPION / "dataset"
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        restore_output(found.checkout, champion.commit, f"artifacts/{champion.name}/dataset", folder)
    except IntegrityError:
        if _were_erased(found, champion):
            return None
        raise
    dataset = task_class(found.settings.task).read(folder)
    if dataset.digest != champion.lineage.get("dataset", dataset.digest):
        raise IntegrityError(
            f"the data set of commit {champion.commit[:12]} is not the one that the package of "
            f"{champion.name}@v{champion.version} names",
            "`recstill deploy` another version, or mend the repository.",
        )
    return dataset


def _were_erased(found: Survey, champion: Release) -> bool:
    told = (one for one in receipts_now(found.checkout, found.store) if one.kind == "erasure")
    return any(champion.lineage.get("dataset") in one.data for one in told)


def drift_of(found: Survey, champion: Dataset | None) -> Drift | None:
    """How far the data have moved since the champion; None when no version is live."""
    if champion is None:
        return None
    now = open_task(found.settings.task, found.artifacts / "dataset")
    return drift_between(task_of(found.settings.task, champion).population(), now.population())


def has_moved(found: Survey, drift: Drift) -> bool:
    """Whether that is enough for a retraining with ``drift.retrain: when_moved``."""
    limits = found.settings.retraining.drift
    return drift.psi > limits.moved_psi or drift.new_items > limits.moved_new_item_share


def verdict_of(found: Survey, champion: Dataset | None, drift: Drift | None, report: Path) -> dict[str, Any]:
    """The verdict of the gate.

    Args:
        found: The run, all of its stages done, or the last ones but for a refusal of ``report``.
        champion: The champion's data set.
        drift: Against it.
        report: Folder of ``metrics.json`` and ``choice.json``.

    Raises:
        IntegrityError: A package or data set is damaged.
        StorageError: The store cannot be read.
    """
    settings = found.settings
    evidence = Evidence(
        found.dataset,
        found.source,
        read_json(report / "metrics.json"),
        read_json(report / "choice.json"),
        settings.budget,
        settings.gate,
    )
    contest = None
    if evidence.choice["chosen"] is not None and champion is not None:
        contest = _contest(found, champion)
    verdict = judge(
        evidence,
        contest,
        settings.retraining.gate,
        settings.evaluation,
        # Without its data there is nothing to hold both against: then it counts as if it were the first.
        champion=found.champion_version if champion is not None else None,
        drift=drift.record() if drift else None,
    )
    return {**verdict, "package": judged_package(found)}


def judged_package(found: Survey) -> str | None:
    """SHA-256 of the ``package.json`` that the run has made: what a verdict is about; None when nothing may ship."""
    record = found.artifacts / "package" / RECORD
    return file_digest(record) if record.is_file() else None


def _contest(found: Survey, champion: Dataset) -> Contest:
    release = found.champion
    assert release is not None
    held_out = open_task(found.settings.task, found.artifacts / "dataset").beyond(champion)
    own = score(found.artifacts / "package", held_out)
    other = score(fetch_release(found.store, release, found.tree / _CHAMPION / "packages"), held_out)
    return Contest(
        users=held_out.users,
        challenger=own.values,
        champion=other.values,
        challenger_cold=own.cold,
        champion_cold=other.cold,
        dropped=held_out.dropped,
        span=held_out.span,
        version=release.version,
    )
