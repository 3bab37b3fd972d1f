"""Export to ONNX and quantize: the pruned student in every form, student and teacher for comparison."""

from __future__ import annotations

import time

import torch

from components.compression.item_index import faiss_library
from components.compression.openvino_form import write_openvino
from components.compression.openvino_runtime import library
from components.compression.rounding import rounded_as_trained
from components.compression.variants import write_variants
from components.networks.building import read_network
from components.settings.quantization import QuantizationSettings, VariantName
from components.settings.threads import threads_per_network
from components.stages.workspace import Workspace, run_stage
from components.storage.atomic import new_folder, write_json
from components.storage.checkpoints import checkpoint_digest
from components.tasks.building import open_task

_COMPARED: dict[str, tuple[str, tuple[VariantName, ...]]] = {
    "student": ("student", ("fp32", "int8_table8")),
    "teacher_member": ("teacher/member-0", ("fp32", "int8_table8", "int8_table4")),
}
# Of few bits a large network loses less than a small one: where they are asked for, the teacher has them too.
_FEW_BITS: tuple[VariantName, ...] = ("int4_table2", "int4_product")


def work(workspace: Workspace) -> None:
    """From ``pruned/``, ``student/`` and ``teacher/`` to ``quantized/``; ranges come from training histories only."""
    torch.set_num_threads(threads_per_network())
    started = time.monotonic()
    settings = workspace.settings("quantization", QuantizationSettings)
    if settings.openvino:
        library("openvino"), library("nncf")  # told before the work, not after it
    if "int8_index" in settings.variants:
        faiss_library()
    whole = open_task(workspace.value("task"), workspace.artifacts / "dataset")
    entries, overlaps, sizes = [], {}, {}
    with new_folder(workspace.artifacts / "quantized") as folder:
        few = tuple(form for form in _FEW_BITS if form in settings.variants)
        for made_from, (place, forms) in {"pruned": ("pruned", settings.variants), **_COMPARED}.items():
            checkpoint = workspace.artifacts / place
            network = read_network(checkpoint)
            if made_from == "teacher_member" and not network.is_served:
                print("the teacher has no served form: nothing is compared with one")
                continue
            task = whole.reading(network.max_length)
            calibration = task.calibration(settings.calibration_histories, seed=0)
            for variant, overlap in write_variants(
                folder,
                network,
                (*forms, *few) if made_from == "teacher_member" else forms,
                rounded_as_trained(settings, checkpoint),
                calibration,
                task=task,
                made_from=made_from,
                from_digest=checkpoint_digest(checkpoint),
            ):
                print(
                    f"{variant.name:32} {variant.bytes:>12,} bytes   top-{task.best_of} as in torch {overlap:7.2%}",
                    flush=True,
                )
                entries.append(variant)
                overlaps[variant.name], sizes[variant.name] = overlap, variant.bytes
            if made_from == "pruned" and settings.openvino:
                (folder / "openvino").mkdir()
                overlap = write_openvino(
                    folder / "openvino", network, calibration, task=task, from_digest=checkpoint_digest(checkpoint)
                )
                size = sum(path.stat().st_size for path in (folder / "openvino").iterdir())
                print(f"{'openvino':32} {size:>12,} bytes   top-{task.best_of} as in torch {overlap:7.2%}", flush=True)
                overlaps["openvino"], sizes["openvino"] = overlap, size
        entries.sort(key=lambda variant: variant.name)
        write_json(folder / "variants.json", {"variants": [variant.record() for variant in entries]})
    workspace.write_metrics("quantize", {"bytes": sizes, f"top{whole.best_of}_overlap": overlaps}, started)


if __name__ == "__main__":
    run_stage("quantize", work)
