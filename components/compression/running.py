"""What a graph gives for some requests, as it is served."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime

from components.compression.export import model_bytes
from components.tasks.batch import Feed


def outputs_of(model: onnx.ModelProto, feeds: Sequence[Feed]) -> np.ndarray:
    """The output ``(rows, width)`` of a model that has one, in ONNX Runtime, one thread, one feed after the other.

    Args:
        model: Any that was exported here: its output are scores, or an encoder's vectors.
        feeds: At least one.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model_bytes(model), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])
