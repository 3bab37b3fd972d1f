"""A causal transformer over 5,000 items (d=64, two blocks of two heads, length 50), one thread.

Its weights are trained, for three epochs on 72,000 drawn events: how much a rounded network differs from its own scores
hangs on what they are like. Requests are the histories of held-out events. Every latency is timed in turns with
torch's; throughput with OpenVINO is compared with the mean of torch's before and after.

* ``b1_ratio``: median latency at batch 1 of the form ``int8_table8`` in ONNX Runtime.
* ``b64_ratio``: throughput at batch 64 of the form for batches in OpenVINO; ``b64_onnxruntime_ratio``: of
  ``int8_table8``.
* ``bytes_ratio``, ``int4_bytes_ratio``: files of ``int8_table8`` and ``int4_table4``, of four bytes a weight.
* ``top10_overlap``: items that the ten best of ``int8_table8`` and of torch have in common.
* ``pruned_b1_ratio``: as ``b1_ratio``, with half of the heads and feed-forward channels cut out.
* ``competing_b1_ratio``: the same with the multiply-adds that this leaves, the parts competing for them.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from components.compression.cost import multiply_adds
from components.compression.openvino_form import write_openvino
from components.compression.pruning import groups_to_cut, pruned
from components.compression.variants import top_overlap, write_variants
from components.data.synthetic import draw_events
from components.evaluation.benchmark import Timed, Timing, benchmark
from components.evaluation.measuring import FP32_BYTES, requests_of
from components.evaluation.scoring import network_scorer, onnx_scorer
from components.networks.building import write_network
from components.networks.contract import PredictionNetwork
from components.settings.evaluation import EvaluationSettings
from components.settings.network import CausalTransformerSettings
from components.settings.pruning import PruningSettings
from components.settings.quantization import QuantizationSettings
from components.settings.source import SyntheticSource
from components.settings.training import OptimizationSettings, TrainerSettings
from components.tasks.next_item import NextItem
from components.training.fitting import fit, initial_network
from components.training.module import SupervisedTraining
from tests.benchmarks.figures import Figure
from tests.benchmarks.training_epoch import leave_one_out

ITEMS, LENGTH = 5_000, 50
SHAPE = CausalTransformerSettings(dim=64, blocks=2, heads=2, ffn_dim=256, max_length=LENGTH)
EPOCHS = OptimizationSettings(max_epochs=3, patience=3, batch_size=8, learning_rate=3e-3, average_decay=0.95)
FORMS = QuantizationSettings(variants=("fp32", "int8_table8", "int4_table4"))
REQUESTS = EvaluationSettings(latency_requests=600, throughput_batches=20)


def measured() -> list[Figure]:
    """Trains, cuts, writes every form, times them all."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = _task(folder)
        network = initial_network(SHAPE, task.outcomes, seed=0)
        fit(network, task, EPOCHS, TrainerSettings(), seed=0, threads=1, plain=True)
        halved = _cut(network, task, PruningSettings(ffn_ratio=0.5, heads_ratio=0.5))
        share = multiply_adds(halved.record()) / multiply_adds(network.record())
        competing = _cut(network, task, PruningSettings(multiply_adds_share=share))

        _write(folder, network, task, "network", FORMS)
        for made_from, smaller in (("halved", halved), ("competing", competing)):
            _write(folder, smaller, task, made_from, QuantizationSettings(variants=("int8_table8",)))
        (folder / "openvino").mkdir()
        write_openvino(folder / "openvino", network, task.calibration(512, seed=0), task=task, from_digest="")
        timings = _timings(folder, task)
        overlap = _overlap(folder / "network.int8_table8.onnx", network, task)
        whole = FP32_BYTES * sum(parameter.numel() for parameter in network.parameters())
        sizes = {form: (folder / f"network.{form}.onnx").stat().st_size / whole for form in FORMS.variants}

    for name, timing in timings.items():
        print(
            f"{name:24} p50 {timing.p50_ms:.3f} ms, of torch's {timing.latency_ratio:.3f}; "
            f"{timing.throughput:,.0f} histories a second at batch 64"
        )
    print(f"multiply-adds left of the halved network {share:.3f}; blocks of the competing one:")
    print(competing.record()["blocks"])
    torch64 = (timings["torch"].throughput + timings["torch again"].throughput) / 2
    return [
        Figure("b1_ratio", timings["int8_table8"].latency_ratio),
        Figure("b64_ratio", timings["openvino"].throughput / torch64),
        Figure("b64_onnxruntime_ratio", timings["int8_table8"].throughput / torch64),
        Figure("bytes_ratio", sizes["int8_table8"]),
        Figure("int4_bytes_ratio", sizes["int4_table4"]),
        Figure("top10_overlap", overlap),
        Figure("pruned_b1_ratio", timings["halved"].latency_ratio),
        Figure("competing_b1_ratio", timings["competing"].latency_ratio),
    ]


def _task(folder: Path) -> NextItem:
    source = SyntheticSource(
        kind="synthetic", path="components/data/synthetic.py", users=1_200, items=ITEMS, events_per_user=60
    )
    return NextItem(leave_one_out(draw_events(source), folder), LENGTH)


def _cut(network: PredictionNetwork, task: NextItem, settings: PruningSettings) -> PredictionNetwork:
    judge = SupervisedTraining(network, EPOCHS, 0, task=task).eval()
    groups = groups_to_cut(network, settings)
    return pruned(network, groups, settings, task=task, loss=judge.loss_sum, seed=0).network


def _write(
    folder: Path, network: PredictionNetwork, task: NextItem, made_from: str, settings: QuantizationSettings
) -> None:
    (folder / made_from).mkdir()
    write_network(folder / made_from, network)
    calibration = task.calibration(settings.calibration_histories, seed=0)
    for variant, _ in write_variants(
        folder, network, settings.variants, settings, calibration, task=task, made_from=made_from, from_digest=""
    ):
        print(f"{variant.name:24} {variant.bytes:>10,} bytes", flush=True)


def _timings(folder: Path, task: NextItem) -> dict[str, Timing]:
    forms = {
        "fp32": "network.fp32",
        "int8_table8": "network.int8_table8",
        "int4_table4": "network.int4_table4",
        "halved": "halved.int8_table8",
        "competing": "competing.int8_table8",
    }
    reference = Timed("torch", "network", folder / "network", LENGTH)
    contenders = [
        *(Timed(name, "onnx", folder / f"{file}.onnx", LENGTH) for name, file in forms.items()),
        reference,
        Timed("openvino", "openvino", folder / "openvino", LENGTH),
        reference._replace(name="torch again"),
    ]
    with Progress(console=Console(stderr=True)) as progress:
        return benchmark(contenders, reference, {LENGTH: requests_of(task, REQUESTS)}, progress)


def _overlap(model: Path, network: PredictionNetwork, task: NextItem) -> float:
    """Of the ten best items, on the held-out histories."""
    found = []
    for scorer in (onnx_scorer(model), network_scorer(network)):
        with torch.inference_mode():
            found.append(np.concatenate([scorer(batch).numpy() for batch in task.evaluation_batches("test", 64)]))
    return top_overlap(*found)
