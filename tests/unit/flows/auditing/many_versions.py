"""A checkout with several versions of two models: real git, DVC, packages, soft labels, releases, tags and switches.

What the stages "make" was made before, by the real code, and is copied by them: a version takes seconds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import yaml

from components.data.dataset import read_dataset
from components.data.ingesting import ingest
from components.data.preparing import prepare, write_dataset
from components.data.sources import open_source
from components.serving.packaging import PackageContent, write_package
from components.settings.prepare import PrepareSettings
from components.settings.source import SyntheticSource
from components.soft_labels.manifest import MANIFEST_NAME, record_name, written
from components.storage.atomic import read_json
from components.storage.contract import ObjectStore
from components.tasks.building import open_task
from components.training.teacher_store import put_teacher
from flows.auditing.witness import WITNESS
from flows.finalizing import FinishedRun, finalize
from flows.promoting import Order, bring_live
from flows.repository import identity, store_of
from flows.switching import mark_stage, roll_back
from tests.unit.evaluation.tiny_artifacts import MAX_LENGTH, make_artifacts
from tests.unit.flows.small_checkout import VERDICT, dvc, git
from tests.unit.serving.conftest import FIGURES, LINEAGE, requests_of
from tests.unit.soft_labels.synthetic_cache import synthetic_cache

NAMES = ("tiny", "small")
VERSIONS = 3
VARIABLES = ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS")
_STAGES = {
    "make": ("events.parquet", "dataset"),
    "labels": ("soft_labels/manifest.json",),
    "pack": ("teacher", "package"),
}


def many_versions(folder: Path) -> Path:
    """The checkout, in ``folder/checkout``: three versions of each model, some of them live once, one rolled back."""
    made = _made(folder / "made")
    root = _checkout(folder / "checkout")
    with plain_environment():
        store = store_of(root)
        for number in range(1, VERSIONS + 1):
            for name in NAMES:
                _new_source(root, store, made, name, number)
            git(root, "add", "-A", "--", ".", ":!dvc.lock")
            git(root, "commit", "-q", "-m", f"data of day {number}")
            dvc(root, "repro", "-q")
            git(root, "checkout", "-q", "--", ".")
            git(root, "clean", "-q", "-f", "-d", "-e", "dvc.lock")
            for name in NAMES:
                key = hashlib.sha256(f"{name} {number}".encode()).hexdigest()
                finalize(FinishedRun(root, root, name, key, VERDICT), _silent)
                # The last one is registered and was never live.
                if number < VERSIONS or name == NAMES[0]:
                    bring_live(root, Order(name, number, who="Tess", why=f"day {number}"), _silent)
        roll_back(root, NAMES[0], None, who=identity(root).name, why="slower than before", say=_silent)
        mark_stage(root, store, NAMES[0], _silent)
    shutil.rmtree(folder / "made")
    return root


def copy_of(root: Path, place: Path) -> Path:
    """A copy of a checkout that remembers what the checkout does: the witness knows stores by their address."""
    shutil.copytree(root, place, symlinks=True)
    witness = place / WITNESS
    if witness.is_file():
        witness.write_text(witness.read_text().replace(str(root.resolve()), str(place.resolve())))
    return place


@contextmanager
def plain_environment() -> Iterator[None]:
    """Nothing of the machine's settings: the checkout's own store and keys."""
    kept = {name: os.environ.pop(name) for name in VARIABLES if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def _silent(line: str) -> None:
    """Nobody listens."""


def _checkout(root: Path) -> Path:
    root.mkdir(parents=True)
    stages = {
        stage: {
            "foreach": list(NAMES),
            "do": {
                "cmd": " && ".join(_copying(out) for out in outs),
                "deps": [f"source/${{item}}/{out}" for out in outs],
                "params": ["scenarios.${item}.seed"],
                "outs": [f"artifacts/${{item}}/{out}" for out in outs],
            },
        }
        for stage, outs in _STAGES.items()
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {name: {"seed": 0} for name in NAMES}}))
    (root / ".gitignore").write_text("/artifacts/\n/.recstill/\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Tess Ter")
    git(root, "config", "user.email", "tess@example.org")
    git(root, "config", "gc.auto", "0")
    dvc(root, "init", "-q")
    return root


def _copying(out: str) -> str:
    target = f"artifacts/${{item}}/{out}"
    return f"mkdir -p $(dirname {target}) && cp -r source/${{item}}/{out} {target}"


def _new_source(root: Path, store: ObjectStore, made: Path, name: str, number: int) -> None:
    """What the stages of a model will copy: other bytes every day, some of them the same."""
    folder = root / "source" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "events.parquet").write_bytes(np.random.default_rng([number, len(name)]).bytes(40_000 + 1_000 * number))
    shutil.copytree(made / "artifacts/dataset", folder / "dataset")
    (folder / "dataset" / "day.json").write_text(f'{{"day": {number}, "name": "{name}"}}\n')
    shutil.copytree(made / "artifacts/teacher", folder / "teacher")
    manifest = synthetic_cache(store, 500, 200, codec={"name": "top_k_tail", "k": 4 * number + len(name)})
    content = written(manifest)
    (folder / "soft_labels").mkdir()
    (folder / "soft_labels" / MANIFEST_NAME).write_bytes(content)
    for key, bytes_ in [
        (manifest.key(MANIFEST_NAME), content),
        *((manifest.key(record_name(part.number)), written(part)) for part in manifest.parts),
    ]:
        store.put(key, bytes_, hashlib.sha256(bytes_).hexdigest())
    teacher = put_teacher(store, folder / "teacher", ["a", "b"])
    lineage = {**LINEAGE, "teacher": teacher, "soft_labels": manifest.id}
    lineage["dataset"] = str(read_json(folder / "dataset" / "dataset.json")["digest"])
    _package(folder / "package", made / "artifacts", name, number, lineage)


def _package(folder: Path, artifacts: Path, name: str, number: int, lineage: dict[str, str]) -> None:
    task = open_task("next_item", artifacts / "dataset", MAX_LENGTH)
    variant = read_json(artifacts / "quantized" / "variants.json")["variants"][1]
    random = np.random.default_rng(number)
    content = PackageContent(
        name=name,
        model=artifacts / "quantized" / variant["file"],
        choice={
            **{"chosen": variant["name"], "reason": "the smallest", "made_from": "pruned", "variant": variant},
            **{"sha256": variant["sha256"], "max_length": MAX_LENGTH, "figures": FIGURES},
        },
        metrics={"contenders": {"teacher": FIGURES}, "test_targets": 60, "test_users": 60},
        source=read_json(artifacts / "source.json"),
        lineage=lineage,
        dirty=False,
        params={"seed": number},
        requests=requests_of([random.choice(task.outcome_ids, size).tolist() for size in (1, 3, 8)]),
    )
    folder.mkdir()
    write_package(folder, content, task)


def _made(folder: Path) -> Path:
    """Artifacts of the real code, from the seeded generator."""
    settings = SyntheticSource(
        kind="synthetic", path="components/data/synthetic.py", users=60, items=48, events_per_user=12
    )
    found = ingest(open_source(settings, Path()), settings, datetime(2026, 1, 1, tzinfo=UTC))
    dataset = prepare(found.events, found.items, PrepareSettings(), found.record["digest"])
    write_dataset(folder / "dataset", dataset)
    make_artifacts(folder / "artifacts", folder / "dataset", read_dataset(folder / "dataset").items)
    return folder
