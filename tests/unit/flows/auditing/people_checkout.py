"""A checkout with two registered versions of real data about people: the first one holds everybody.

Events, data set, soft labels and package are made by the real code from a table; only training is left out. The second
version is of the same table without PERSON.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import yaml

from components.data.dataset import read_dataset
from components.data.ingesting import ingest
from components.data.preparing import prepare, write_dataset
from components.data.sources import open_source
from components.serving.packaging import PackageContent, write_package
from components.settings.prepare import PrepareSettings
from components.settings.source import SyntheticSource, TableSource
from components.soft_labels.manifest import CacheIdentity, Manifest, record_name, written
from components.storage.atomic import write_json
from components.storage.folder_store import FolderStore
from components.tasks.building import task_of
from flows.auditing.sketching import DURING, sketch_here
from flows.finalizing import FinishedRun, Registered, finalize
from flows.repository import store_of
from tests.unit.flows.small_checkout import SCENARIO, VERDICT, dvc, git
from tests.unit.serving.conftest import requests_of
from tests.unit.soft_labels.synthetic_cache import synthetic_cache

PERSON = "person-0017@example.org"
OTHER = "person-0003@example.org"
_TABLES = ("events.parquet", "items.parquet", "rejected.parquet", "source.json")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class PeopleCheckout:
    """The checkout, and the versions: with the person, and without."""

    root: Path
    versions: tuple[Registered, ...]


def people_checkout(folder: Path, content: PackageContent, *, without: bool = True) -> PeopleCheckout:
    """Make it.

    Args:
        folder: Where.
        content: Of a package, whose model is used.
        without: Make the second version too.
    """
    root = folder / "checkout"
    root.mkdir(parents=True)
    rows = _rows()
    _write_checkout(root)
    rows.write_csv(root / "people.csv")
    versions = [_version(root, content, rows, "a")]
    if without:
        versions.append(_version(root, content, rows.filter(pl.col("user") != PERSON), "b"))
    return PeopleCheckout(root, tuple(versions))


def _rows() -> pl.DataFrame:
    settings = SyntheticSource(
        kind="synthetic", path="components/data/synthetic.py", users=40, items=48, events_per_user=12
    )
    events = ingest(open_source(settings, Path()), settings, _NOW).events
    named = pl.format("person-{}@example.org", pl.col("user").str.zfill(4))
    table = events.select(user=named, item="item", timestamp="timestamp")
    bad = pl.DataFrame({"user": [PERSON, OTHER], "item": ["7", "8"], "timestamp": [-5, -6]})
    return pl.concat([table, bad])


def _write_checkout(root: Path) -> None:
    stages = {
        "take": {
            "cmd": "mkdir -p artifacts/tiny && "
            + " && ".join(f"cp made/{name} artifacts/tiny/{name}" for name in _TABLES),
            "deps": [f"made/{name}" for name in _TABLES],
            "outs": [f"artifacts/tiny/{name}" for name in _TABLES],
        },
        "split": {
            "cmd": "rm -rf artifacts/tiny/dataset && cp -r made/dataset artifacts/tiny/dataset",
            "deps": ["artifacts/tiny/events.parquet", "made/dataset"],
            "outs": ["artifacts/tiny/dataset"],
        },
        "label": {
            "cmd": "mkdir -p artifacts/tiny/soft_labels && cp made/manifest.json artifacts/tiny/soft_labels",
            "deps": ["artifacts/tiny/dataset", "made/manifest.json"],
            "outs": ["artifacts/tiny/soft_labels/manifest.json"],
        },
        "pack": {
            "cmd": "rm -rf artifacts/tiny/package && cp -r made/package artifacts/tiny/package",
            "deps": ["artifacts/tiny/dataset", "artifacts/tiny/soft_labels/manifest.json", "made/package"],
            "outs": ["artifacts/tiny/package"],
        },
    }
    document = {name: {"foreach": [SCENARIO], "do": stage} for name, stage in stages.items()}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": document}))
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {SCENARIO: _scenario()}}))
    (root / ".gitignore").write_text("/artifacts/\n/.recstill/\n/made/\n/people.csv\n")
    git(root, "init", "-q", "-b", "main")
    git(root, "config", "user.name", "Tess Ter")
    git(root, "config", "user.email", "tess@example.org")
    dvc(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a checkout")


def _scenario() -> dict[str, object]:
    network = {"dim": 8, "blocks": 1, "max_length": 8}
    return {
        "task": "next_item",
        "seed": 0,
        "source": {"kind": "table", "path": "people.csv", "max_rejected_share": 0.5},
        "prepare": {"split": "leave_one_out"},
        "teacher": {"network": network},
        "student": {"network": network},
        **{name: {} for name in ("distillation", "pruning", "quantization", "evaluation", "soft_labels")},
        "trainer": {"accelerator": "cpu"},
        "budget": {},
        "gate": {},
    }


def _version(root: Path, content: PackageContent, rows: pl.DataFrame, key: str) -> Registered:
    made = root / "made"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    rows.write_csv(root / "rows.csv")
    source = TableSource(kind="table", path="rows.csv", max_rejected_share=0.5)
    found = ingest(open_source(source, root), source, _NOW)
    (root / "rows.csv").unlink()
    for name, table in (("events", found.events), ("items", found.items), ("rejected", found.rejected)):
        table.write_parquet(made / f"{name}.parquet")
    write_json(made / "source.json", found.record)
    write_dataset(made / "dataset", prepare(found.events, found.items, PrepareSettings(), found.record["digest"]))
    dataset = read_dataset(made / "dataset")
    manifest = labelled(store_of(root), dataset.digest)
    (made / "manifest.json").write_bytes(written(manifest))
    (made / "package").mkdir()
    people = pl.read_parquet(made / "dataset" / "users.parquet").sort("user")["id"].to_list()
    # The golden requests are histories of the first one, and of PERSON where they are there.
    chosen = [people.index(one) for one in (PERSON, OTHER) if one in people]
    ids = dataset.catalogue["id"].to_list()
    first = [dataset.item[dataset.offsets[user] : dataset.offsets[user] + 6].tolist() for user in chosen]
    requests = requests_of([[ids[item] for item in items] for items in first])
    lineage = {
        **content.lineage,
        "source": str(found.record["digest"]),
        "dataset": dataset.digest,
        "soft_labels": manifest.id,
        "commit": git(root, "rev-parse", "HEAD"),
    }
    write_package(
        made / "package", replace(content, lineage=lineage, requests=requests), task_of("next_item", dataset, 8)
    )
    dvc(root, "repro", "-q")
    git(root, "checkout", "-q", "--", ".")
    sketch_here(root, SCENARIO, DURING)
    done = finalize(FinishedRun(root, root, SCENARIO, key * 64, VERDICT), lambda _: None)
    (root / "dvc.lock").unlink()
    return done


def labelled(store: object, dataset: str) -> Manifest:
    """A cache of soft labels of a data set."""
    assert isinstance(store, FolderStore)
    first = synthetic_cache(store, 90, 40, outcomes=48)
    identity = CacheIdentity(**{**first.model_dump(exclude={"id", "rows", "parts"}), "dataset": dataset})
    for part in first.parts:
        store.put(identity.key(part.name), store.get(first.key(part.name)), part.sha256)
        record = written(part)
        store.put(identity.key(record_name(part.number)), record, hashlib.sha256(record).hexdigest())
        store.delete(first.key(part.name))
    manifest = Manifest(**identity.model_dump(), id=identity.cache_id, rows=first.rows, parts=first.parts)
    content = written(manifest)
    store.put(manifest.key("manifest.json"), content, hashlib.sha256(content).hexdigest())
    return manifest


def rows_of(root: Path, person: str) -> list[str]:
    """Every file anywhere below a checkout that holds a person: decoded tables, and the bytes of everything else.

    The source itself is theirs who own it; it is left out, and so is what the test has made the outputs from.
    """
    found = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root).parts
        if not path.is_file() or inside[0] in ("made", "people.csv"):
            continue
        content = path.read_bytes()
        in_table = content[:4] == b"PAR1" and _in_table(path, person)
        in_golden = content[:1] == b"{" and b'"requests"' in content and _in_golden(content, root, person)
        if person.encode() in content or in_table or in_golden:
            found.append("/".join(inside))
    return found


def _in_table(path: Path, person: str) -> bool:
    table = pl.read_parquet(path)
    texts = [name for name, kind in table.schema.items() if kind == pl.String]
    return any((table[name] == person).any() for name in texts)


def _in_golden(content: bytes, root: Path, person: str) -> bool:
    try:
        histories = [request["history"] for request in json.loads(content)["requests"]]
    except (ValueError, KeyError, TypeError):
        return False
    rows = pl.read_csv(root / "people.csv", schema_overrides={"item": pl.String})
    own = rows.filter((pl.col("user") == person) & (pl.col("timestamp") > 0)).sort("timestamp")["item"].to_list()
    return any(own[start : start + len(one)] == one for one in histories for start in range(len(own)))
