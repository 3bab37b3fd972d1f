"""dvc.yaml says of each stage exactly what the stage's code does: modules, parameters, files."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import yaml

from tests.stage_modules import ROOT, modules_of, stage_names

GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


@pytest.mark.parametrize("stage", stage_names())
def test_deps_name_every_module_that_the_stage_imports(stage: str) -> None:
    listed = [dep for dep in GRAPH[stage]["do"]["deps"] if dep.endswith(".py")]
    assert listed == modules_of(stage), "run `make stage-deps`"


@pytest.mark.parametrize("stage", stage_names())
def test_params_name_what_the_stage_reads_and_nothing_else(stage: str) -> None:
    source = (ROOT / "components" / "stages" / f"{stage}.py").read_text()
    if "workspace.values()" in source:
        assert GRAPH[stage]["do"]["params"] == ["scenarios.${key}"]
        return
    if "workspace.two_stage()" in source:
        assert GRAPH[stage]["do"]["params"] == ["two_stage.${key}"]
        assert "workspace.settings(" not in source and "workspace.value(" not in source
        return
    read = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("workspace.settings", "workspace.value"):
            section = node.args[0]
            assert isinstance(section, ast.Constant), (
                "a stage names its sections literally, so that this test sees them"
            )
            read.add(f"scenarios.${{key}}.{section.value}")
    assert read == set(GRAPH[stage]["do"]["params"])


@pytest.mark.parametrize("stage", stage_names())
def test_the_command_runs_the_stage_of_that_name(stage: str) -> None:
    assert GRAPH[stage]["do"]["cmd"] == f"python -m components.stages.{stage} ${{key}}"
    assert GRAPH[stage]["do"]["desc"]


def test_every_stage_module_is_in_the_graph() -> None:
    modules = (ROOT / "components" / "stages").glob("*.py")
    runnable = {path.stem for path in modules if 'run_stage("' in path.read_text()}
    assert runnable == set(stage_names())


def test_files_that_the_code_reads_beside_modules_are_deps_of_a_stage() -> None:
    listed = {dep for stage in GRAPH.values() for dep in stage["do"]["deps"]}
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "components").rglob("*.j2")}
    assert templates and templates <= listed
