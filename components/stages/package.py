"""Put the chosen variant into a package that can be served alone and names its teacher and data."""

from __future__ import annotations

from importlib.metadata import version

from components.data.dataset import read_dataset
from components.provenance.lineage import commit_of
from components.serving.package_folder import MODEL
from components.serving.packaging import GOLDEN_REQUESTS, PackageContent, write_package
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder, read_json
from components.storage.digests import record_digest
from components.tasks.building import task_of


def work(workspace: Workspace) -> None:
    """Read the report's choice, and write ``package/``."""
    task = workspace.value("task")
    params = workspace.values()
    artifacts = workspace.artifacts
    dataset = read_dataset(artifacts / "dataset")
    choice = read_json(artifacts / "report" / "choice.json")
    commit = commit_of(workspace.root)
    networks = read_json(artifacts / "report" / "lineage.json")
    lineage = {
        **{name: networks[name] for name in ("source", "dataset", "teacher", "student", "pruned") if name in networks},
        "soft_labels": read_json(artifacts / "soft_labels" / "manifest.json")["id"],
        "variant": choice["sha256"],
        "params": record_digest(params),
        "commit": commit.commit,
        "version": version("recstill"),
    }
    feeds = task_of(task, dataset, choice["max_length"]).histories(GOLDEN_REQUESTS, seed=0)
    content = PackageContent(
        name=workspace.scenario,
        task=task,
        model=artifacts / "quantized" / choice["file"],
        choice=choice,
        metrics=read_json(artifacts / "report" / "metrics.json"),
        source=read_json(artifacts / "source.json"),
        lineage=lineage,
        dirty=commit.dirty,
        params=params,
        histories=[
            items[:length].tolist()
            for feed in feeds
            for items, length in zip(feed["items"], feed["length"], strict=True)
        ],
    )
    with new_folder(artifacts / "package") as folder:
        write_package(folder, content, dataset)
    size = (artifacts / "package" / MODEL).stat().st_size
    print(f"package: {choice['chosen']}, {size:,} bytes, in {artifacts / 'package'}")


if __name__ == "__main__":
    run_stage("package", work)
