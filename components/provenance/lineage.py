"""What a scenario's artifacts were made from, as digests: one record for the report and the package."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from components.networks.ensemble import teacher_digest
from components.storage.checkpoints import checkpoint_digest
from components.storage.digests import file_digest

UNKNOWN = "unknown"
# What decides over the result of a run: the code, its settings, the graph, and the pinned libraries.
_DECISIVE = ("components", "params.yaml", "dvc.yaml", "requirements.lock", "pyproject.toml")


class Commit(NamedTuple):
    """The commit that a run worked from.

    Attributes:
        commit: 40 hexadecimal digits, or ``unknown`` outside a git checkout.
        dirty: Was code, a parameter or a pin changed or added since? None where that is unknown.
    """

    commit: str
    dirty: bool | None


def network_lineage(artifacts: Path, dataset: dict[str, Any]) -> dict[str, str]:
    """Digests of the data set, of its source, and of every network of a scenario.

    Args:
        artifacts: ``artifacts/<scenario>``.
        dataset: The content of ``dataset.json``.

    Raises:
        DataError: A network is missing.
    """
    record = {
        "dataset": str(dataset["digest"]),
        "teacher": teacher_digest(artifacts / "teacher"),
        **{name: checkpoint_digest(artifacts / name) for name in ("baseline", "student", "pruned")},
        "variants": file_digest(artifacts / "quantized" / "variants.json"),
    }
    if source := dataset.get("source_digest"):
        record["source"] = str(source)
    return record


def commit_of(root: Path) -> Commit:
    """The commit that is checked out in ``root``; a run outside a git checkout says honestly that it knows none."""
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        return Commit(UNKNOWN, None)
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *_DECISIVE)
    return Commit(head, None if changes is None else bool(changes))


def _git(root: Path, *arguments: str) -> str | None:
    try:
        # A lock taken for a look would stop a commit that is made meanwhile.
        command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
