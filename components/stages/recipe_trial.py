"""One recipe tried: distilled, pruned and quantized as the stages do it, and measured on the validation points.

A trial's folder is laid out like a checkout with one scenario: ``params.yaml`` holds the recipe, ``artifacts`` has
links to the data set, the teacher and the manifest of the soft labels, which no trial makes or changes. So the stages'
own code trains in it, and the recipe that is chosen gives the same bytes when the graph runs it.

What a recipe costs depends on its shapes alone, so it is measured first, on a network that is not trained: a recipe
that is much too large or too slow ends there.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import load_file

from components.compression.importance import chance
from components.compression.pruning import counts_to_keep, groups_to_cut
from components.compression.rounding import rounded_as_trained
from components.compression.surgery import cut, units_to_keep
from components.compression.variants import Variant, write_variants
from components.evaluation.comparison import Interval, paired_bootstrap
from components.evaluation.frontier import Limits, Reference, point_of, too_costly
from components.evaluation.scoring import onnx_scorer
from components.networks.building import read_network
from components.networks.contract import PredictionNetwork
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.settings.pruning import PruningSettings
from components.settings.quantization import QuantizationSettings, VariantName
from components.settings.student import StudentSettings
from components.settings.threads import threads_per_network
from components.stages import distill, prune
from components.stages.recipe_reference import RECORD_FILE, VALUES_FILE
from components.stages.recipe_timing import timed
from components.stages.requested import Asker, run_request
from components.stages.workspace import Workspace, cost_since
from components.storage.atomic import read_json, write_json
from components.tasks.building import open_task
from components.tasks.contract import Task
from components.training.callbacks import Epoch
from components.training.fitting import initial_network

RESULT_FILE = "result.json"
VARIANTS = "quantized"
_LINKED = ("dataset", "teacher", "soft_labels")
_BATCH_SIZE = 128
_FINE_TUNED = "pruned"  # the name of the network whose epochs follow those of the student


class _StoppedError(Exception):
    """Whoever asked for the trial has seen enough."""


def work(request: dict[str, Any], asker: Asker) -> None:
    """Try the recipe of ``folder``; the result is written last, and nothing but it and files worth keeping stays."""
    torch.set_num_threads(threads_per_network())
    started = time.monotonic()
    folder, scenario = Path(request["folder"]), str(request["scenario"])
    workspace = Workspace(scenario, folder, lambda name, epoch: _ask(workspace, asker, name, epoch))
    _link(workspace, Path(request["artifacts"]))
    settings = workspace.settings("student", StudentSettings)
    quantization = workspace.settings("quantization", QuantizationSettings)
    reference = _reference(Path(request["reference"]))
    limits = Limits(BudgetSettings(**request["budget"]), GateSettings(**request["gate"]))
    task = open_task(workspace.value("task"), workspace.artifacts / "dataset", settings.network.max_length)

    untrained = _untrained(workspace, task, settings)
    costs = _costs(workspace, task, untrained, quantization, request)
    slack = float(request["slack"])
    near = [form for form, own in costs.items() if not too_costly(point_of(0, form, own, reference, limits), slack)]
    result: dict[str, Any] = {
        "points": costs,
        "trained": False,
        "stopped": None,
        "parameters": sum(parameter.numel() for parameter in untrained.parameters()),
    }
    asker.tell(costs=costs, near=near)
    if near or request["always"]:
        try:
            # An interrupted trial goes on where it was; its folder is that of one recipe on one code.
            if not (workspace.artifacts / "metrics" / "distill.json").is_file():
                distill.work(workspace)
            prune.work(workspace)
        except _StoppedError as stop:
            result["stopped"] = int(str(stop))
        else:
            result["trained"] = True
            forms = [form for form in quantization.variants if form in near or request["always"]]
            qualities = _qualities(workspace, task, forms, quantization, Path(request["reference"]))
            result["points"] = {form: {**own, **qualities.get(form, {})} for form, own in costs.items()}
    result["cost"] = cost_since(started)
    _tidy(workspace)
    write_json(folder / RESULT_FILE, result)


def _ask(workspace: Workspace, asker: Asker, name: str, epoch: Epoch) -> None:
    """Tell of an epoch of the student or of its fine-tuning, and stop when that is the answer."""
    first = workspace.settings("student", StudentSettings).optimization.max_epochs
    tuned = workspace.settings("pruning", PruningSettings).optimization.max_epochs
    step = epoch.epoch + (first if name == _FINE_TUNED else 0)
    if name in ("student", _FINE_TUNED) and not asker.agrees(
        step=step, steps=first + tuned, validation=epoch.validation
    ):
        raise _StoppedError(step)


def _link(workspace: Workspace, artifacts: Path) -> None:
    workspace.artifacts.mkdir(parents=True, exist_ok=True)
    for name in _LINKED:
        link = workspace.artifacts / name
        link.unlink(missing_ok=True)
        link.symlink_to((artifacts / name).resolve())


def _reference(folder: Path) -> Reference:
    record = read_json(folder / RECORD_FILE)
    return Reference(record["primary"], record["title"], record["quality"], record["fp32_bytes"])


def _untrained(workspace: Workspace, task: Task, settings: StudentSettings) -> PredictionNetwork:
    """A network of the shape that the trial ends with: units are cut by chance, as many as will be.

    Where units of all parts compete, how many of each will stay is not known before training; as they are drawn here,
    they cost as much.
    """
    pruning = workspace.settings("pruning", PruningSettings)
    network = initial_network(settings.network, task.outcomes, workspace.value("seed"), task.sizes).eval()
    groups = groups_to_cut(network, pruning)
    if not groups:
        return network
    scores = chance(groups, seed=0)
    counts = counts_to_keep(network, groups, scores, pruning, student=network)
    return cut(network, groups, units_to_keep(groups, scores, counts))


def _costs(
    workspace: Workspace,
    task: Task,
    network: PredictionNetwork,
    quantization: QuantizationSettings,
    request: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Bytes of every variant, and the latency of those that are not much too large, by the variant's form."""
    folder = workspace.root / "untrained"
    # Which codes and weights a form gets costs nothing to serve, and takes time to find.
    quickly = quantization.model_copy(update={"rounding": "nearest", "fine_tuning": None})
    variants = _variants(folder, network, quickly.variants, quickly, task)
    found: dict[str, dict[str, Any]] = {form: {"bytes": variant.bytes} for form, variant in variants.items()}
    limit = request["budget"].get("max_bytes")
    most = float("inf") if limit is None or request["always"] else limit * (1 + float(request["slack"]))
    files = {
        form: (folder / variant.file, network.max_length) for form, variant in variants.items() if variant.bytes <= most
    }
    if files:
        settings = workspace.settings("evaluation", EvaluationSettings)
        timings = timed(files, workspace.artifacts, task, settings, Path(request["lock"]))
        for form, timing in timings.items():
            found[form] |= timing
    return found


def _qualities(
    workspace: Workspace, task: Task, forms: Sequence[VariantName], settings: QuantizationSettings, reference: Path
) -> dict[str, dict[str, Any]]:
    """Bytes and quality of the trained variants on the validation points, beside the teacher, with intervals."""
    network = read_network(workspace.artifacts / "pruned")
    folder = workspace.root / VARIANTS
    shutil.rmtree(folder, ignore_errors=True)
    settings = rounded_as_trained(settings, workspace.artifacts / "pruned")
    variants = _variants(folder, network, forms, settings, task)
    judged = {
        form: task.judge(onnx_scorer(folder / variant.file), task.evaluation_batches("validation", _BATCH_SIZE))
        for form, variant in variants.items()
    }
    teacher = load_file(reference / VALUES_FILE)
    evaluation = workspace.settings("evaluation", EvaluationSettings)
    compared = paired_bootstrap(
        {form: found.values for form, found in judged.items()},
        teacher["values"],
        teacher["users"],
        samples=evaluation.bootstrap_samples,
        seed=evaluation.bootstrap_seed,
    )
    return {
        form: {
            "bytes": variants[form].bytes,
            "file": variants[form].file,
            "sha256": variants[form].sha256,
            "max_length": network.max_length,
            "quality": round(found.figures[task.primary.key], 6),
            **_rounded(compared[form].retention),
        }
        for form, found in judged.items()
    }


def _rounded(retention: Interval) -> dict[str, float]:
    """The share of the teacher's quality and its interval; nothing where the teacher has none."""
    named = {"retention": retention.estimate, "retention_low": retention.low, "retention_high": retention.high}
    return {key: round(value, 6) for key, value in named.items() if math.isfinite(value)}


def _variants(
    folder: Path,
    network: PredictionNetwork,
    forms: Sequence[VariantName],
    settings: QuantizationSettings,
    task: Task,
) -> dict[str, Variant]:
    folder.mkdir(parents=True, exist_ok=True)
    calibration = task.calibration(settings.calibration_histories, seed=0)
    written = write_variants(
        folder, network, forms, settings, calibration, task=task, made_from="pruned", from_digest=""
    )
    return {variant.form: variant for variant, _ in written}


def _tidy(workspace: Workspace) -> None:
    """Only the variants are looked at again, when the best are timed."""
    for path in ("artifacts", "untrained", ".recstill"):
        shutil.rmtree(workspace.root / path, ignore_errors=True)


if __name__ == "__main__":
    run_request(work)
