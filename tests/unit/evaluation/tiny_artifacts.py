"""Artifacts of every stage before `evaluate`, by the real code but without training: in a second or two."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnxruntime.quantization import quantize_dynamic

from components.compression import variants
from components.compression.export import export_onnx, model_bytes
from components.networks.building import new_network, read_network, write_network
from components.networks.ensemble import teacher_digest
from components.settings.network import CausalTransformerSettings
from components.settings.quantization import QuantizationSettings, SearchSettings
from components.storage.atomic import write_json
from components.storage.checkpoints import checkpoint_digest
from components.storage.digests import file_digest
from components.tasks.building import open_task

MAX_LENGTH = 8
STAGES = ("train_teacher", "train_baseline", "soft_labels", "distill", "prune", "quantize")
SHAPES = {
    "teacher/member-0": (16, 2, 32),
    "teacher/member-1": (16, 2, 32),
    "baseline": (8, 1, 16),
    "student": (8, 1, 16),
    "pruned": (8, 1, 8),
}


def make_artifacts(artifacts: Path, prepared_folder: Path, items: int) -> None:
    shutil.copytree(prepared_folder, artifacts / "dataset")
    for seed, (name, (dim, blocks, ffn_dim)) in enumerate(SHAPES.items()):
        torch.manual_seed(seed)
        shape = CausalTransformerSettings(dim=dim, blocks=blocks, ffn_dim=ffn_dim, heads=2, max_length=MAX_LENGTH)
        network = new_network(shape, items)
        # Untrained scores are nearly alike; larger weights make ranks that do not hang on rounding.
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(20)
        (artifacts / name).mkdir(parents=True)
        write_network(artifacts / name, network.eval())
    teacher = artifacts / "teacher"
    write_json(teacher / "teacher.json", {"members": 2})
    write_json(teacher / "teacher.json", {"members": 2, "digest": teacher_digest(teacher)})
    for number, stage in enumerate(STAGES):
        cost = {"seconds": 1.0 + number, "cpu_seconds": 2.0 + number, "peak_mib": 100.0 + number}
        write_json(artifacts / "metrics" / f"{stage}.json", {"cost": cost})
    (artifacts / "curves").mkdir()
    rows = "".join(f"{name},{epoch},{5 - epoch},{0.1 * epoch}\n" for name in ("member-0", "pruned") for epoch in (0, 1))
    (artifacts / "curves" / "all.csv").write_text("network,epoch,train_loss,validation\n" + rows)
    _variants(artifacts, network)
    write_json(artifacts / "soft_labels" / "manifest.json", {"id": "c" * 64})
    write_json(artifacts / "source.json", {"kind": "synthetic", "about": {"title": "Synthetic interactions"}})


def write_searched(artifacts: Path, folder: Path) -> dict[str, Any]:
    """The pruned network with an index, in ``folder``; gives its record."""
    exported = onnx.load(artifacts / "quantized" / "pruned.fp32.onnx")
    task = open_task("next_item", artifacts / "dataset", MAX_LENGTH)
    settings = QuantizationSettings(search=SearchSettings(recall=0.9))
    with pytest.MonkeyPatch.context() as patch:  # it was exported already, which takes seconds
        patch.setattr(variants, "export_onnx", lambda _: exported)
        ((variant, _),) = variants.write_variants(
            folder,
            read_network(artifacts / "pruned"),
            ["int8_index"],
            settings,
            task.calibration(16, seed=0),
            task=task,
            made_from="pruned",
            from_digest=checkpoint_digest(artifacts / "pruned"),
        )
    return variant.record()


def _variants(artifacts: Path, network: torch.nn.Module) -> None:
    folder = artifacts / "quantized"
    folder.mkdir()
    exported = folder / "pruned.fp32.onnx"
    exported.write_bytes(model_bytes(export_onnx(network)))  # type: ignore[arg-type]
    quantize_dynamic(exported, folder / "pruned.int8_dynamic.onnx", op_types_to_quantize=["MatMul"])
    records = [
        {
            "name": path.stem,
            "file": path.name,
            "bytes": path.stat().st_size,
            "sha256": file_digest(path),
            "made_from": "pruned",
            "from_digest": checkpoint_digest(artifacts / "pruned"),
            "form": path.stem.partition(".")[2],
            "weight_bits": bits,
            "activation_bits": bits,
            "table_bits": bits,
        }
        for path, bits in ((exported, 32), (folder / "pruned.int8_dynamic.onnx", 8))
    ]
    write_json(folder / "variants.json", {"variants": records})
