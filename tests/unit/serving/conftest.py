from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.data.dataset import PreparedDataset
from components.serving.packaging import PackageContent, write_package
from components.storage.atomic import read_json
from components.tasks.building import open_task
from tests.unit.evaluation.tiny_artifacts import MAX_LENGTH, make_artifacts

FIGURES = {
    **{"ndcg10": 0.0931, "recall10": 0.17, "mrr": 0.08, "bytes": 9000, "p50_ms": 0.3, "parameters": 1000},
    **{"retention": 0.96, "retention_low": 0.93, "retention_high": 0.99},
}
LINEAGE = {
    **{
        name: digit * 64
        for name, digit in zip(("source", "dataset", "teacher", "student", "pruned"), "abcde", strict=True)
    },
    **dict.fromkeys(("soft_labels", "variant", "params"), "f" * 64),
    "commit": "1" * 40,
    "version": "0.1.0",
}


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, prepared_folder: Path, prepared: PreparedDataset) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "artifacts"
    make_artifacts(folder, prepared_folder, prepared.items)
    return folder


def requests_of(histories: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Golden requests of some histories."""
    return [{"history": list(history), "k": 10, "exclude_seen": True} for history in histories]


@pytest.fixture(scope="session")
def content(artifacts: Path, prepared: PreparedDataset) -> PackageContent:
    variant = read_json(artifacts / "quantized" / "variants.json")["variants"][1]
    ids, random = prepared.catalogue["id"].to_list(), np.random.default_rng(0)
    return PackageContent(
        name="tiny",
        model=artifacts / "quantized" / variant["file"],
        choice={
            **{"chosen": variant["name"], "reason": "the smallest", "made_from": "pruned", "variant": variant},
            **{"sha256": variant["sha256"], "max_length": MAX_LENGTH, "figures": FIGURES},
        },
        metrics={"contenders": {"teacher": FIGURES}, "test_targets": 60, "test_users": 60},
        source=read_json(artifacts / "source.json"),
        lineage=LINEAGE,
        dirty=False,
        params={"seed": 0},
        requests=requests_of([random.choice(ids, size).tolist() for size in (1, 3, 8, 20)]),
    )


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, content: PackageContent, artifacts: Path) -> Path:
    """A package far from any checkout. Read only."""
    folder = tmp_path_factory.mktemp("elsewhere") / "package"
    folder.mkdir()
    write_package(folder, content, open_task("next_item", artifacts / "dataset", MAX_LENGTH))
    return folder
