"""docs/tasks.md adds a task: one module, one row, one entry; here they go through every stage as they stand there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

from components.serving.predictor import Predictor
from components.storage.atomic import read_json
from components.tasks import building
from components.tasks.building import TASKS, open_task
from flows.params import read_params
from tests.stage_modules import ROOT
from tests.unit.tasks.whole_runs import run

(SECTION,) = re.findall(
    r"^## Adding one\n(.*?)^## ", (ROOT / "docs" / "tasks.md").read_text(), re.MULTILINE | re.DOTALL
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)


def test_a_task_is_added_in_fewer_than_a_hundred_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, row = blocks("python")
    (entry,) = blocks("yaml")
    importing = [
        "def _balanced() -> type[Task]:",
        "    from components.tasks.balanced import Balanced",
        "    return Balanced",
    ]
    assert len([*module.splitlines(), *row.splitlines(), *entry.splitlines(), *importing]) < 100

    (tmp_path / "balanced.py").write_text(module)
    found = importlib.util.spec_from_file_location("balanced", tmp_path / "balanced.py")
    assert found is not None and found.loader is not None
    added = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, "balanced", added)
    found.loader.exec_module(added)
    name, make, answering = re.fullmatch(r'"(\w+)": \((\w+), (\w+)\),\n', row).groups()  # type: ignore[union-attr]
    assert make == "_balanced" and name not in TASKS
    monkeypatch.setitem(TASKS, name, (lambda: added.Balanced, getattr(building, answering)))
    (tmp_path / "params.yaml").write_text(f"scenarios:\n{entry}")
    (scenario,) = yaml.safe_load(entry)
    assert read_params(tmp_path).scenarios[scenario].task == name

    artifacts = run(tmp_path, scenario, yaml.safe_load(entry)[scenario])
    metrics = read_json(artifacts / "report" / "metrics.json")
    assert metrics["measures"][0]["key"] == "balanced_accuracy"
    assert metrics["contenders"]["commonest"]["balanced_accuracy"] == pytest.approx(0.5)
    assert metrics["contenders"]["teacher"]["balanced_accuracy"] > 0.6
    task = open_task(name, artifacts / "dataset")
    answer = Predictor(artifacts / "package").ask(task.golden_requests(1)[0])
    assert {*answer.labels} == {*task.outcome_ids} and sum(answer.probabilities) == pytest.approx(1)
    assert task.beyond(None).requests() and task.population().values is not None
