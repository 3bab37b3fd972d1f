"""A scenario in a folder of its own, by the real stages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.stages import (
    distill,
    evaluate,
    ingest,
    package,
    prepare,
    prune,
    quantize,
    soft_labels,
    train_baseline,
    train_teacher,
)
from components.stages.workspace import Workspace

TRAINING = (train_teacher, train_baseline, soft_labels, distill, prune, quantize)
ALL = (ingest, prepare, *TRAINING, evaluate, package)


def run(root: Path, name: str, scenario: dict[str, Any], stages: Sequence[Any] = ALL) -> Path:
    """Run stages of a scenario in ``root``, with a store of its own there; gives its folder of artifacts."""
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {name: scenario}}))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("RECSTILL_STORE", f"file://{root}/store")
        patch.setenv("RECSTILL_THREADS", "1")
        for stage in stages:
            stage.work(Workspace(name, root))
    return root / "artifacts" / name
