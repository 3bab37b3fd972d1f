"""The rules of the house that a reader cannot be trusted to remember."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from components.tasks.building import task_class, task_names
from tests.stage_modules import ROOT, imported_modules, stage_names

COMPONENTS = sorted((ROOT / "components").rglob("*.py"))
FLOWS = sorted((ROOT / "flows").rglob("*.py"))

# Each layer may import itself and those before it; `errors` may be imported by all.
LAYERS = (
    {"errors"},
    {"settings", "storage"},
    {"data"},
    {"tasks"},
    {"networks"},
    {"soft_labels"},
    {"training"},
    {"compression"},
    {"evaluation"},
    {"provenance"},
    {"serving"},
    {"stages"},
)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> set[str]:
    """Top-level packages that a module imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.partition(".")[0])
    return found


def layer_of(path: Path) -> int:
    package = path.relative_to(ROOT / "components").parts[0].removesuffix(".py")
    return next((number for number, layer in enumerate(LAYERS) if package in layer), -1)


# What is written against the contract of components/tasks, and names no task.
AFTER_THE_TASKS = ("soft_labels", "training", "compression", "evaluation", "provenance", "serving", "stages")
CONTRACT = {"contract", "batch", "beyond", "building", "answering"}
SHARED = [
    path for path in COMPONENTS if path.parent.name in AFTER_THE_TASKS or path.parent.parent.name in AFTER_THE_TASKS
]
# Modules of components/data and components/settings that know one kind of data.
OF_ONE_KIND = re.compile(r"(^|_)(clicks?|digit|features|images?|labelled|samples?|shifting|texts?|tokenizing)(_|$)")


def scopes(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    """A module, and every class and function in it."""
    yield table
    for child in table.get_children():
        yield from scopes(child)


def named_tasks(source: str, names: set[str], classes: set[str]) -> list[str]:
    """Where a module names a task: in a text, by its class, or by anything but a variable of one function.

    A task may be called like an everyday variable, `text`. Such a name is a task's unless it is bound as a parameter, a
    variable or a field just there, and not by an import.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in names:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Attribute) and node.attr in classes:
            found.append(ast.unparse(node))
        if isinstance(node, ast.alias) and node.name.rpartition(".")[2] in names | classes:
            found.append(ast.unparse(node))
    for scope in scopes(symtable.symtable(source, "module", "exec")):
        for symbol in scope.get_symbols():
            own = symbol.is_local() and scope.get_type() != "module" and not symbol.is_imported()
            if symbol.get_name() in classes or (symbol.get_name() in names and not (own or symbol.is_free())):
                found.append(f"{symbol.get_name()} in {scope.get_name()}")
    return found


@pytest.mark.parametrize("path", SHARED, ids=relative)
def test_what_all_tasks_share_names_none_of_them(path: Path) -> None:
    modules = {f"components/tasks/{name}.py" for name in CONTRACT}
    of_tasks = {relative(module) for module in imported_modules(path) if module.parent.name == "tasks"}
    assert of_tasks - {"components/tasks/__init__.py"} <= modules
    names = set(task_names())
    assert not named_tasks(path.read_text(), names, {task_class(name).__name__ for name in names})


@pytest.mark.parametrize("path", [path for path in SHARED if path.stem != "ingest"], ids=relative)
def test_what_comes_after_ingest_knows_no_kind_of_data(path: Path) -> None:
    known = [module for module in imported_modules(path) if module.parent.name in ("data", "settings")]
    assert not [relative(module) for module in known if OF_ONE_KIND.search(module.stem)]


@pytest.mark.parametrize(
    "source",
    [
        'if task == "text":\n    pass',
        "match task:\n    case 'text':\n        pass",
        "from components.tasks import text",
        "from elsewhere import Text as T",
        "def f():\n    import text",
        "def f():\n    return text.judge",
        "text = 1",
        "def text():\n    pass",
        "def f(x):\n    return isinstance(x, Text)",
        "def f(x):\n    return x.tasks.Text()",
    ],
)
def test_a_name_of_a_task_is_found(source: str) -> None:
    assert named_tasks(source, {"text"}, {"Text"})
    assert not named_tasks("def f(text):\n    g = lambda: text\n    return run(text=True)", {"text"}, {"Text"})


@pytest.mark.parametrize("path", COMPONENTS, ids=relative)
def test_components_import_no_orchestrator(path: Path) -> None:
    assert not imports(path) & {"prefect", "prefect_dask", "dvc", "flows"}


@pytest.mark.parametrize("path", FLOWS, ids=relative)
def test_flows_import_no_torch(path: Path) -> None:
    assert not imports(path) & {"torch", "pytorch_lightning", "lightning", "torchmetrics"}


@pytest.mark.parametrize("path", [path for path in COMPONENTS if path.parent != ROOT / "components"], ids=relative)
def test_imports_between_components_go_one_way(path: Path) -> None:
    assert layer_of(path) > 0, "a new package of components/ needs its place in LAYERS"
    later = [
        relative(module)
        for module in imported_modules(path)
        if module.parent != ROOT / "components" and layer_of(module) > layer_of(path)
    ]
    assert not later


def test_components_have_no_import_circles() -> None:
    edges = {path: imported_modules(path) for path in COMPONENTS if path.name != "__init__.py"}

    def walk(path: Path, trail: list[Path]) -> None:
        assert path not in trail, "circle: " + " -> ".join(relative(step) for step in [*trail, path])
        if path not in done:
            for step in edges.get(path, ()):
                walk(step, [*trail, path])
            done.add(path)

    done: set[Path] = set()
    for path in edges:
        walk(path, [])


@pytest.mark.parametrize("path", COMPONENTS + FLOWS, ids=relative)
def test_nothing_is_pickled_or_extracted(path: Path) -> None:
    forbidden_calls = {"torch.save", "torch.load", "joblib.load", "joblib.dump", "yaml.load", "pl.read_excel"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in forbidden_calls
            assert not called.endswith(".extractall")
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert keywords.get("allow_pickle") != "True"
            assert keywords.get("weights_only") != "False"
    assert not imports(path) & {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "tarfile"}


@pytest.mark.parametrize("path", FLOWS, ids=relative)
def test_two_modules_alone_touch_dvc(path: Path) -> None:
    allowed = {"graph.py", "dvc_remote.py"}
    assert path.name in allowed or not imports(path) & {"dvc", "dvc_data", "dvc_objects"}


@pytest.mark.parametrize("path", FLOWS, ids=relative)
def test_flows_hold_no_second_list_of_stages(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) == "git"]
    of_git = {id(word) for call in calls for word in call.args}  # `git worktree prune` prunes no student
    words = [
        node.value
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in of_git
    ]
    named = {word for word in words if word.partition("@")[0] in set(stage_names()) - {"package"}}
    assert not named


@pytest.mark.parametrize("path", COMPONENTS + FLOWS, ids=relative)
def test_modules_are_small_and_named_after_what_they_hold(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400
    assert not re.search(r"util|helper|manager|common|misc", path.stem)


def test_the_layers_are_those_of_the_plan() -> None:
    names = [name for layer in LAYERS for name in layer]
    assert len(names) == len(set(names))
    assert all(not a & b for a, b in pairwise(LAYERS))
    packages = {path.name for path in (ROOT / "components").iterdir() if (path / "__init__.py").is_file()}
    assert packages <= set(names)
