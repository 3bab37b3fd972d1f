"""Latency of variants, one after the other, as the benchmark of the evaluation measures it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import Progress

from components.evaluation.benchmark import Timed, benchmark
from components.evaluation.measuring import requests_of
from components.networks.building import read_network
from components.networks.ensemble import member_folders
from components.settings.evaluation import EvaluationSettings
from components.stages.requested import Asker, alone, run_request
from components.storage.atomic import write_json
from components.tasks.building import open_task
from components.tasks.contract import Task

_SECONDS = ("p50_ms", "p95_ms", "p99_ms", "latency_ratio", "throughput", "peak_mib")


def timed(
    files: Mapping[str, tuple[Path, int]], artifacts: Path, task: Task, settings: EvaluationSettings, lock: Path
) -> dict[str, dict[str, float]]:
    """Latency, throughput and memory of ONNX files, beside one member of the teacher in torch.

    Args:
        files: Each with the events of a history that it reads at most, by name.
        artifacts: Where the teacher lies.
        task: Whose validation points are the requests.
        settings: How many requests.
        lock: Held meanwhile, so that trials do not time at the same time.

    Raises:
        RecstillError: A file cannot be run.
    """
    member = member_folders(artifacts / "teacher")[0]
    reference = Timed("teacher", "network", member, read_network(member).max_length)
    networks = [Timed(name, "onnx", path, length) for name, (path, length) in files.items()]
    lengths = {reference.max_length, *(network.max_length for network in networks)}
    requests = {length: requests_of(task.reading(length), settings, "validation") for length in lengths}
    with alone(lock):
        found = benchmark(networks, reference, requests, Progress(disable=True))
    return {
        name: {key: round(float(value), 6) for key, value in timing._asdict().items() if key in _SECONDS}
        for name, timing in found.items()
    }


def work(request: dict[str, Any], asker: Asker) -> None:
    """Time ``files`` and write what was measured to ``answer``."""
    artifacts = Path(request["artifacts"])
    task = open_task(request["task"], artifacts / "dataset")
    files = {name: (Path(path), int(length)) for name, (path, length) in request["files"].items()}
    settings = EvaluationSettings.model_validate(request["evaluation"])
    write_json(Path(request["answer"]), timed(files, artifacts, task, settings, Path(request["lock"])))


if __name__ == "__main__":
    run_request(work)
