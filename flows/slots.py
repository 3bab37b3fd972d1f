"""Who has to wait: one stage is never brought up to date twice at once, and only one stage at a time has the GPU.

Both are global concurrency limits of the Prefect server of ``PREFECT_API_URL``, made by `recstill schedule`. Without a
server, or without the limits, nobody waits: then DVC's locks alone keep two runs in one checkout apart.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from components.settings.reading import read_document

GPU_LIMIT = "recstill-gpu"
"""One slot: the stage that trains or scores on an accelerator."""

# A run that is killed keeps its slots until its lease ends; a living one renews it in time.
_LEASE_SECONDS = 60.0
_CPU = "cpu"


def stage_limit(address: str) -> str:
    """The name of a stage's limit of one slot, such as ``recstill-stage-distill@movielens``."""
    return f"recstill-stage-{address}"


def takes_gpu(root: Path, address: str) -> bool:
    """Whether a stage may use an accelerator: it reads the scenario's ``trainer``, which names one.

    ``accelerator: auto`` counts, since it takes a GPU where there is one.
    """
    stage, _, scenario = address.partition("@")
    section = read_document(root)["scenarios"].get(scenario) or {}
    accelerator = str((section.get("trainer") or {}).get("accelerator", _CPU))
    return accelerator != _CPU and any(str(key).endswith(".trainer") for key in _params(root, stage))


@contextmanager
def stage_slots(root: Path, address: str) -> Iterator[None]:
    """Within the block the stage's slots are taken; others that want one of them wait. Waits itself for as long."""
    if not os.environ.get("PREFECT_API_URL"):
        yield
        return
    from prefect.concurrency.sync import concurrency

    names = [stage_limit(address), *([GPU_LIMIT] if takes_gpu(root, address) else [])]
    with concurrency(names, strict=False, lease_duration=_LEASE_SECONDS):
        yield


def _params(root: Path, stage: str) -> list[Any]:
    """The parameters that a stage of dvc.yaml names; none when there is no such stage."""
    document = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))
    entry = (document.get("stages") or {}).get(stage) or {}
    return (entry.get("do") or entry).get("params") or []
