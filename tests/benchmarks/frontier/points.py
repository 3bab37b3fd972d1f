"""Points of a frontier of quality against costs: a scenario with some changes, run up to its forms, and their measures.

Each seed has one clone of this checkout, in which one point is run after the other: the teacher and its soft labels are
made once, since nothing of them changes. What was found is kept, so that an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper
from rich.progress import Progress, SpinnerColumn, TimeRemainingColumn

from components.evaluation.comparison import Comparison, paired_bootstrap
from components.evaluation.contenders import Contender, contenders_of, reference_of
from components.evaluation.measuring import judge_all, time_all
from components.networks.building import read_network
from components.networks.ensemble import read_teacher
from components.settings.evaluation import EvaluationSettings
from components.settings.reading import scenario_section
from components.storage.atomic import new_folder, read_json, write_json
from components.tasks.building import open_task
from tests.benchmarks.figures import Figure

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
SAMPLES = 4000
TEACHER = "teacher"
MEMBER = "teacher_member.fp32"
Curve = Literal["teacher", "without_teacher", "distilled", "quantized", "distilled_quantized", "all"]
# The student trained without a teacher is the same network, and is exported to the same graph.
_COSTS_OF = {"baseline": "student.fp32"}
_TIMED = EvaluationSettings(latency_requests=120, throughput_batches=2)


class Point(NamedTuple):
    """A run of the scenario.

    Attributes:
        name: Unique in the frontier.
        changes: ``key=value`` assignments below ``scenarios.<scenario>``.
        contenders: Of the run, which of them are judged, and on which curve each lies.
    """

    name: str
    changes: tuple[str, ...]
    contenders: Mapping[str, Curve]


class Frontier(NamedTuple):
    """What is measured on one data set.

    Attributes:
        data: Its name, as in ``DATA=``.
        scenario: Which one is run.
        changes: Made before every point, beside its own.
        points: In the order in which they are run. The first one judges the teacher.
        figures: From all that was judged to what is printed.
    """

    data: str
    scenario: str
    changes: tuple[str, ...]
    points: tuple[Point, ...]
    figures: Callable[[Sequence[Judged]], list[Figure]]


class Costs(NamedTuple):
    """What a contender costs.

    Attributes:
        bytes: Of the weights or of the ONNX file.
        row_bytes: Of one row of the item table, scales included.
        latency_ratio: Median latency at batch 1 as a share of one teacher member's in torch eager, in the same run.
    """

    bytes: int
    row_bytes: float
    latency_ratio: float


@dataclass(frozen=True)
class Judged:
    """One point of one seed.

    Attributes:
        point: Its name.
        seed: Of its trainings.
        commit: Of the code that ran.
        command: What ran.
        measure: Title of the primary measure.
        users: ``(T,)``, what the bootstrap draws.
        values: The primary measure of each test point by contender.
        target_events: ``(T,)``, how many training events the target of each test point has.
        costs: By contender.
    """

    point: str
    seed: int
    commit: str
    command: str
    measure: str
    users: np.ndarray
    values: dict[str, np.ndarray]
    target_events: np.ndarray
    costs: dict[str, Costs]


def judged(frontier: Frontier, point: Point, seed: int, folder: Path) -> Judged:
    """Run a point, unless it has been run as it is now; other code runs it again, as far as that changes anything.

    Args:
        frontier: Of which it is.
        point: Which.
        seed: Of its trainings.
        folder: Where clones and results are kept.
    """
    kept, root = folder / f"{frontier.data}-{seed}-{point.name}", folder / f"{frontier.data}-{seed}"
    command = ["recstill", "run", frontier.scenario, "--to", "train_baseline", "--to", "quantize"]
    for change in (f"seed={seed}", *frontier.changes, *point.changes):
        command += ["--set", f"scenarios.{frontier.scenario}.{change}"]
    made_from = {"commit": _git(ROOT, "rev-parse", "HEAD"), "command": shlex.join(command)}
    wanted = {**made_from, "contenders": sorted(point.contenders)}
    if not (kept / "result.json").is_file() or read_json(kept / "result.json")["made_from"] != wanted:
        _run(command, root)
        _keep(kept, root, frontier.scenario, point, wanted)
    record, arrays = read_json(kept / "result.json"), np.load(kept / "values.npz")
    return Judged(
        point=point.name,
        seed=seed,
        **made_from,
        measure=record["measure"],
        users=arrays["users"],
        values={name: arrays[name] for name in point.contenders},
        target_events=arrays["target_events"],
        costs={name: Costs(*costs) for name, costs in record["costs"].items()},
    )


def level(name: str, found: Sequence[Judged], point: str, contender: str) -> Figure:
    """The primary measure, the mean over the seeds; the interval is of the test points."""
    values, users = mean_over_seeds(found, point, contender)
    return Figure(name, *compared(values, np.zeros_like(values), users).difference)


def difference(name: str, found: Sequence[Judged], one: tuple[str, str], other: tuple[str, str]) -> Figure:
    """The primary measure of one point's contender above that of another, on the same test points."""
    values, users = mean_over_seeds(found, *one)
    return Figure(name, *compared(values, mean_over_seeds(found, *other)[0], users).difference)


def share(name: str, found: Sequence[Judged], one: tuple[str, str], other: tuple[str, str]) -> Figure:
    """The primary measure of one point's contender as a share of another's, paired on the same test points."""
    values, users = mean_over_seeds(found, *one)
    return Figure(name, *compared(values, mean_over_seeds(found, *other)[0], users).retention)


def of_less_popular(name: str, found: Sequence[Judged], one: tuple[str, str], other: tuple[str, str]) -> Figure:
    """Recall of one point's contender above that of another, where the target is one of the less popular half.

    A target is found where the primary measure, which counts the first k places, is above 0.
    """
    of_point = [[judged for judged in found if judged.point == point] for point, _ in (one, other)]
    first = of_point[0][0]
    half = first.target_events <= np.median(first.target_events)
    mine, theirs = (
        np.mean([judged.values[contender] > 0 for judged in judgements], axis=0)[half]
        for judgements, (_, contender) in zip(of_point, (one, other), strict=True)
    )
    return Figure(name, *compared(mine, theirs, first.users[half]).difference)


def bytes_share(name: str, found: Sequence[Judged], one: tuple[str, str]) -> Figure:
    """Bytes of a contender's file as a share of one teacher member's in fp32."""
    costs = next(judged.costs for judged in found if judged.point == one[0])
    member = next(judged.costs[MEMBER] for judged in found if MEMBER in judged.costs)
    return Figure(name, costs[one[1]].bytes / member.bytes)


def mean_over_seeds(found: Sequence[Judged], point: str, contender: str) -> tuple[np.ndarray, np.ndarray]:
    """The primary measure of each test point ``(T,)``, and its user ``(T,)``."""
    mine = [one for one in found if one.point == point]
    return np.mean([one.values[contender] for one in mine], axis=0), mine[0].users


def compared(values: np.ndarray, reference: np.ndarray, users: np.ndarray) -> Comparison:
    """Difference and share, each with its interval."""
    return paired_bootstrap({"": values}, reference, users, samples=SAMPLES, seed=0)[""]


def points_of(frontier: Frontier, only: Sequence[str]) -> list[Point]:
    """All points, or some of them by name.

    Raises:
        SystemExit: There is none of that name.
    """
    names = [point.name for point in frontier.points]
    if unknown := sorted({*only} - {*names}):
        raise SystemExit(f"POINTS: {frontier.data} has no {', '.join(unknown)}; it has {', '.join(names)}")
    return [point for point in frontier.points if not only or point.name in only]


def told(found: Sequence[Judged]) -> str:
    """A line a contender of each point: quality, bytes, latency."""
    lines = []
    for name in dict.fromkeys(one.point for one in found):
        mine = [one for one in found if one.point == name]
        for contender, costs in mine[0].costs.items():
            means = [float(one.values[contender].mean()) for one in mine]
            cost = f"{costs.row_bytes:.1f} bytes a row, {costs.bytes:,} in all, latency {costs.latency_ratio:.3f}"
            seeds = ", ".join(f"{mean:.4f}" for mean in means)
            lines.append(f"{name:<14} {contender:<28} {np.mean(means):.4f}  seeds {seeds}  {cost}")
    return "\n".join(lines)


def _run(command: Sequence[str], root: Path) -> None:
    if not root.is_dir():
        subprocess.run(["git", "clone", "-q", str(ROOT), str(root)], check=True)
    _git(root, "fetch", "-q", "origin")
    _git(root, "reset", "-q", "--hard", _git(ROOT, "rev-parse", "HEAD"))
    if subprocess.run([str(BIN / command[0]), *command[1:]], cwd=root, check=False).returncode:
        raise SystemExit(f"{' '.join(command)} failed in {root}")


def _keep(kept: Path, root: Path, scenario: str, point: Point, made_from: dict[str, Any]) -> None:
    artifacts = root / "artifacts" / scenario
    task = open_task(scenario_section(root, scenario, "task"), artifacts / "dataset")
    found = {one.name: one for one in contenders_of(artifacts, {})}
    paid = {name: found[_COSTS_OF.get(name, name)] for name in point.contenders}
    reference = reference_of(list(found.values()))
    to_be_timed = {one.name: one for one in (*paid.values(), reference)}
    with Progress(SpinnerColumn(), *Progress.get_default_columns()[:3], TimeRemainingColumn()) as progress:
        judgements = judge_all([found[name] for name in point.contenders], task, {}, progress)
        timings = time_all(list(to_be_timed.values()), task, _TIMED, progress)
    costs = {
        name: Costs(int(one.bytes or 0), _row_bytes(one, task.outcomes), timings[one.name].latency_ratio)
        for name, one in paid.items()
    }
    with new_folder(kept) as made:
        values = {name: judgement.values for name, judgement in judgements.items()}
        points = next(iter(judgements.values()))
        events = task.outcome_counts[points.targets]
        np.savez(made / "values.npz", users=points.users, target_events=events, **values)
        record = {"made_from": made_from, "measure": task.primary.title, "costs": costs}
        write_json(made / "result.json", record)


def _row_bytes(contender: Contender, rows: int) -> float:
    """What is stored for each row of the item table, scales included."""
    assert contender.path is not None
    if contender.runtime == "onnx":
        graph = onnx.load(contender.path).graph
        stored = [numpy_helper.to_array(tensor) for tensor in graph.initializer]
    else:
        network = (read_teacher if contender.runtime == "teacher" else read_network)(contender.path)
        stored = [parameter.detach().numpy() for parameter in network.parameters()]
    return float(sum(array.nbytes / rows for array in stored if array.ndim and len(array) == rows))


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True).stdout.strip()
