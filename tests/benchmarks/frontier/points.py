"""Points of a frontier of quality against bytes: a scenario with some changes, run whole, and what came of it.

Each seed has one clone of this checkout, in which one point is run after the other: the teacher and its soft labels are
made once, since nothing of them changes. What was found is kept, so that an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from components.evaluation.comparison import paired_bootstrap
from components.evaluation.contenders import Contender, contenders_of
from components.evaluation.scoring import network_scorer, onnx_scorer
from components.networks.building import read_network
from components.networks.ensemble import read_teacher
from components.storage.atomic import new_folder, read_json, write_json
from components.tasks.building import open_task
from tests.benchmarks.figures import Figure

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
SAMPLES = 4000


class Point(NamedTuple):
    """A run of the scenario.

    Attributes:
        name: Unique in the frontier.
        changes: ``key=value`` assignments below ``scenarios.<scenario>``.
        contenders: Of the run, which of them are judged.
    """

    name: str
    changes: tuple[str, ...]
    contenders: tuple[str, ...]


class Frontier(NamedTuple):
    """What is measured on one data set.

    Attributes:
        scenario: Which one is run.
        points: In the order in which they are run.
        figures: From all that was judged to what is printed.
    """

    scenario: str
    points: tuple[Point, ...]
    figures: Callable[[Sequence[Judged]], list[Figure]]


@dataclass(frozen=True)
class Judged:
    """One point of one seed.

    Attributes:
        point: Its name.
        seed: Of its trainings.
        users: ``(T,)``, what the bootstrap draws.
        values: The primary measure of each test point by contender.
        bytes: Of the weights or of the ONNX file, by contender.
        row_bytes: The same of an item's row.
    """

    point: str
    seed: int
    users: np.ndarray
    values: dict[str, np.ndarray]
    bytes: dict[str, int]
    row_bytes: dict[str, float]


def judged(frontier: Frontier, point: Point, seed: int, folder: Path) -> Judged:
    """Run a point, unless it has been run; with other code it is run again, as far as that changes anything.

    Args:
        frontier: Of which it is.
        point: Which.
        seed: Of its trainings.
        folder: Where clones and results are kept.
    """
    kept = folder / f"{frontier.scenario}-{seed}-{point.name}"
    head = _git(ROOT, "rev-parse", "HEAD")
    if not (kept / "result.json").is_file() or read_json(kept / "result.json")["commit"] != head:
        _run(frontier, point, seed, folder / f"{frontier.scenario}-{seed}")
        _keep(kept, folder / f"{frontier.scenario}-{seed}" / "artifacts" / frontier.scenario, point, head)
    record, arrays = read_json(kept / "result.json"), np.load(kept / "values.npz")
    values = {name: arrays[name] for name in point.contenders}
    return Judged(point.name, seed, arrays["users"], values, record["bytes"], record["row_bytes"])


def level(name: str, found: Sequence[Judged], point: str, contender: str) -> Figure:
    """The primary measure, the mean over the seeds; the interval is of the test points."""
    values, users = _mean(found, point, contender)
    return _figure(name, values, np.zeros_like(values), users)


def difference(name: str, found: Sequence[Judged], one: tuple[str, str], other: tuple[str, str]) -> Figure:
    """The primary measure of one point's contender above that of another, on the same test points."""
    values, users = _mean(found, *one)
    return _figure(name, values, _mean(found, *other)[0], users)


def _mean(found: Sequence[Judged], point: str, contender: str) -> tuple[np.ndarray, np.ndarray]:
    mine = [one for one in found if one.point == point]
    return np.mean([one.values[contender] for one in mine], axis=0), mine[0].users


def _figure(name: str, values: np.ndarray, reference: np.ndarray, users: np.ndarray) -> Figure:
    return Figure(name, *paired_bootstrap({name: values}, reference, users, samples=SAMPLES, seed=0)[name].difference)


def _run(frontier: Frontier, point: Point, seed: int, root: Path) -> None:
    if not root.is_dir():
        subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    _git(root, "fetch", "-q", "origin")
    _git(root, "reset", "-q", "--hard", _git(ROOT, "rev-parse", "HEAD"))
    changes = [f"scenarios.{frontier.scenario}.{change}" for change in (f"seed={seed}", *point.changes)]
    command = [str(BIN / "recstill"), "run", frontier.scenario]
    command += [word for change in changes for word in ("--set", change)]
    if subprocess.run(command, cwd=root, check=False).returncode:
        raise SystemExit(f"{' '.join(command)} failed in {root}")


def _keep(kept: Path, artifacts: Path, point: Point, commit: str) -> None:
    task = open_task(read_json(artifacts / "package" / "package.json")["task"], artifacts / "dataset")
    found: dict[str, Contender] = {one.name: one for one in contenders_of(artifacts, {})}
    values, sizes, row_bytes = {}, {}, {}
    users = np.zeros(0, np.int64)
    for name in point.contenders:
        one = found[name]
        assert one.path is not None
        if one.runtime == "onnx":
            scorer = onnx_scorer(one.path)
            row_bytes[name] = _row_bytes(one.path, task.outcomes)
        else:
            network = (read_teacher if one.runtime == "teacher" else read_network)(one.path)
            scorer = network_scorer(network)
            row_bytes[name] = sum(
                part.numel() * part.element_size() / task.outcomes
                for part in network.parameters()
                if len(part) == task.outcomes
            )
        judgement = task.judge(scorer, task.reading(one.max_length).evaluation_batches("test", 256))
        values[name], users, sizes[name] = judgement.values, judgement.users, int(one.bytes or 0)
    with new_folder(kept) as made:
        np.savez(made / "values.npz", users=users, **values)
        write_json(made / "result.json", {"commit": commit, "bytes": sizes, "row_bytes": row_bytes})


def _row_bytes(path: Path, rows: int) -> float:
    """What an ONNX file stores for each row of a table, scales included."""
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    return sum(tensor.nbytes / rows for tensor in tensors if tensor.ndim and len(tensor) == rows)


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def points_of(frontier: Frontier, only: Sequence[str]) -> list[Point]:
    """All points, or some of them by name."""
    return [point for point in frontier.points if not only or point.name in only]


def told(found: Sequence[Judged]) -> str:
    """A line a contender of each point: quality, bytes a row."""
    lines = []
    for name in dict.fromkeys(one.point for one in found):
        mine = [one for one in found if one.point == name]
        for contender in mine[0].values:
            means = [float(one.values[contender].mean()) for one in mine]
            cost = f"{mine[0].row_bytes[contender]:.1f} bytes a row, {mine[0].bytes[contender]:,} in all"
            seeds = ", ".join(f"{mean:.4f}" for mean in means)
            lines.append(f"{name:<6} {contender:<28} {np.mean(means):.4f}  seeds {seeds}  {cost}")
    return "\n".join(lines)
