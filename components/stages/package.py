"""Put the chosen variant into a package that can be served alone and names its teacher and data."""

from __future__ import annotations

from importlib.metadata import version

from components.provenance.lineage import commit_of
from components.serving.package_folder import RECORD
from components.serving.packaging import PackageContent, write_package
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder, read_json
from components.storage.digests import record_digest
from components.tasks.building import open_task


def work(workspace: Workspace) -> None:
    """Read the report's choice, and write ``package/``."""
    name = workspace.value("task")
    params = workspace.values()
    artifacts = workspace.artifacts
    choice = read_json(artifacts / "report" / "choice.json")
    task = open_task(name, artifacts / "dataset", choice["max_length"])
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
    content = PackageContent(
        name=workspace.scenario,
        model=artifacts / "quantized" / choice["file"],
        choice=choice,
        metrics=read_json(artifacts / "report" / "metrics.json"),
        source=read_json(artifacts / "source.json"),
        lineage=lineage,
        dirty=commit.dirty,
        params=params,
    )
    with new_folder(artifacts / "package") as folder:
        write_package(folder, content, task)
    size = read_json(artifacts / "package" / RECORD)["model_bytes"]
    print(f"package: {choice['chosen']}, {size:,} bytes, in {artifacts / 'package'}")


if __name__ == "__main__":
    run_stage("package", work)
