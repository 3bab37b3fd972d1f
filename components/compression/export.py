"""From a network to the ONNX graph that is served: lean, and the same bytes for the same weights."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import onnx
import torch

from components.compression.graph import heads_as_matmul, tidied
from components.networks.contract import PredictionNetwork

OPSET = 23  # Right for masks in every runtime; older opsets gave NaN (see the served form's tests).
OUTPUT = "scores"


def export_onnx(network: PredictionNetwork) -> onnx.ModelProto:
    """The served form of a network as an fp32 ONNX model with opset 23.

    Inputs as the network's ``served_inputs`` say; output ``scores`` ``(batch, K)`` float32. The batch is free at run
    time, and so is the length of a history up to the network's longest. A tied table is stored once. Nothing in the
    file tells of the machine that made it.

    Args:
        network: What is served.

    Raises:
        CompressionError: The network has no served form.
    """
    served = network.for_serving()
    inputs = network.served_inputs
    example = tuple(torch.ones(each.shape, dtype=each.dtype) for each in inputs)
    exporter = logging.getLogger("torch.onnx")
    level = exporter.level
    exporter.setLevel(logging.ERROR)  # It warns that torchvision, which nobody needs, is not installed.
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                served,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[each.name for each in inputs],
                output_names=[OUTPUT],
                dynamic_shapes={each.name: each.dynamic for each in inputs},
                verbose=False,
            )
    finally:
        exporter.setLevel(level)
    assert program is not None
    return tidied(heads_as_matmul(program.model_proto))


def model_bytes(model: onnx.ModelProto) -> bytes:
    """The file of a model; the same model gives the same bytes."""
    return bytes(model.SerializeToString(deterministic=True))


def with_metadata(path: Path, metadata: Mapping[str, str]) -> bytes:
    """The bytes of the model in ``path`` with these texts among its metadata, sorted by key; the graph stays as it is.

    Raises:
        OSError: The file cannot be read.
    """
    model = onnx.load(path)
    known = {entry.key: entry.value for entry in model.metadata_props} | dict(metadata)
    onnx.helper.set_model_props(model, dict(sorted(known.items())))
    return model_bytes(model)
