"""Which stages ask for the GPU's slot."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.slots import stage_slots, takes_gpu

STAGES = """
stages:
  fit:
    foreach: ${scenarios}
    do: {cmd: x, params: ["scenarios.${key}.trainer", "scenarios.${key}.seed"]}
  count:
    foreach: ${scenarios}
    do: {cmd: x, params: ["scenarios.${key}.seed"]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "dvc.yaml").write_text(STAGES)
    chosen = {"a": "gpu", "b": "cpu", "d": "auto"}
    scenarios = {name: {"trainer": {"accelerator": one}} for name, one in chosen.items()} | {"c": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"scenarios": scenarios}))
    return tmp_path


@pytest.mark.parametrize(
    ("address", "expected"),
    [("fit@a", True), ("count@a", False), ("fit@b", False), ("fit@c", False), ("fit@d", True), ("fit@none", False)],
)
def test_the_trainer_of_the_scenario_decides(root: Path, address: str, expected: bool) -> None:
    assert takes_gpu(root, address) is expected


def test_without_a_server_nobody_waits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with stage_slots(root, "fit@a"), stage_slots(root, "fit@a"):
        pass
