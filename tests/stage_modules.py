"""Which modules of ``components/`` each stage runs, from the imports; run as a script, it writes them into dvc.yaml."""

from __future__ import annotations

import ast
import io
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]


@cache
def stage_names() -> list[str]:
    return list(_stages())


def stage_names_of_a_scenario() -> list[str]:
    """Without those that bind scenarios together."""
    return [name for name, stage in _stages().items() if stage["foreach"] == "${scenarios}"]


def _stages() -> dict[str, Any]:
    stages: dict[str, Any] = _yaml().load((ROOT / "dvc.yaml").read_text())["stages"]
    return stages


def modules_of(stage: str) -> list[str]:
    """Paths of the modules that ``python -m components.stages.<stage>`` imports, itself included."""
    found: set[Path] = set()
    open_ends = [ROOT / "components" / "stages" / f"{stage}.py"]
    while open_ends:
        module = open_ends.pop()
        if module not in found:
            found.add(module)
            open_ends.extend(imported_modules(module))
    # A package's __init__ runs too; most hold a docstring and nothing that a stage could depend on.
    return sorted(path.relative_to(ROOT).as_posix() for path in found if not _only_docstring(path))


@cache
def _only_docstring(module: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(module.read_text()).body)


@cache
def imported_modules(module: Path) -> frozenset[Path]:
    """Files below components/ that a module imports when it runs (imports for type checkers only do not count)."""
    found: set[Path] = set()
    for node in _running_nodes(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.startswith("components"):
                parts = name.split(".")
                packages = {ROOT.joinpath(*parts[:depth], "__init__.py") for depth in range(1, len(parts) + 1)}
                found |= {file for file in (*packages, ROOT.joinpath(*parts).with_suffix(".py")) if file.is_file()}
    return frozenset(found)


def _running_nodes(tree: ast.AST) -> list[ast.AST]:
    nodes: list[ast.AST] = []
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        nodes += [child, *_running_nodes(child)]
    return nodes


def with_modules(document: Any) -> Any:
    """dvc.yaml with each stage's ``deps``: the modules first, then whatever else it lists."""
    for stage, body in document["stages"].items():
        others = [dep for dep in body["do"]["deps"] if not dep.endswith(".py")]
        body["do"]["deps"] = [*modules_of(stage), *others]
    return document


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    return yaml


def main() -> None:
    path = ROOT / "dvc.yaml"
    text = io.StringIO()
    _yaml().dump(with_modules(_yaml().load(path.read_text())), text)
    path.write_text(text.getvalue())


if __name__ == "__main__":
    main()
