"""The form for scoring in batches: int8 weights and activations in OpenVINO's representation, made by NNCF.

Ranges of activations come from training points and are fixed, so that a row's scores do not hang on its neighbours in
the batch. The item table is stored once, in int8.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from components.compression.export import export_onnx, model_bytes
from components.compression.openvino_runtime import GRAPH, RECORD, WEIGHTS, compiled_folder, library
from components.compression.variants import reference_scores, top_overlap
from components.networks.contract import PredictionNetwork
from components.storage.atomic import write_json
from components.storage.digests import file_digest
from components.tasks.batch import Feed
from components.tasks.contract import Task

_FILES = (GRAPH, WEIGHTS)


def write_openvino(
    folder: Path, network: PredictionNetwork, calibration: Sequence[Feed], *, task: Task, from_digest: str
) -> float:
    """Write the graph, its weights and a record of both into ``folder``, which must exist.

    Args:
        folder: Where ``model.xml``, ``model.bin`` and ``openvino.json`` go.
        network: In evaluation mode.
        calibration: Feeds of training points.
        task: Whose feeds they are.
        from_digest: Digest of the network's checkpoint.

    Returns:
        Mean share of the best outcomes that are those of the network in torch, on the calibration points.

    Raises:
        CompressionError: The network has no served form, or a score is not finite.
        RecstillError: The extra ``openvino`` is not installed.
    """
    openvino, nncf = library("openvino"), library("nncf")
    nncf.set_log_level(logging.ERROR)
    # Its bars are drawn on a terminal and in logs alike.
    with contextlib.redirect_stdout(io.StringIO()):
        graph = openvino.Core().read_model(model_bytes(export_onnx(network)))
        smaller = nncf.quantize(
            graph, nncf.Dataset(calibration), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(calibration)
        )
    # Its own names count what the process has made before: the same network gives the same bytes.
    for number, node in enumerate(smaller.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    openvino.save_model(smaller, folder / GRAPH, compress_to_fp16=False)
    run = compiled_folder(folder)
    scores = np.concatenate([run(feed).copy() for feed in calibration])
    overlap = top_overlap(scores, reference_scores(network, calibration, task.inputs_of), task.best_of)
    files = {name: {"bytes": (folder / name).stat().st_size, "sha256": file_digest(folder / name)} for name in _FILES}
    write_json(folder / RECORD, {"from_digest": from_digest, "max_length": network.max_length, "files": files})
    return overlap
