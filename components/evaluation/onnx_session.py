"""ONNX Runtime as the served model runs: on the CPU, with one thread unless more are asked for."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from components.errors import IntegrityError

_ERRORS_ONLY = 3


def new_session(model: Path | bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU.

    Args:
        model: The file, or its bytes (what was verified is then what is loaded).
        threads: Threads within one operator; operators run one after the other.

    Raises:
        IntegrityError: The model is damaged, or needs an operator that this ONNX Runtime lacks.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = _ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(
            model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"]
        )
    # ONNX Runtime derives each of its errors straight from Exception, in a private module.
    except Exception as error:
        where = "the model" if isinstance(model, bytes) else str(model)
        raise IntegrityError(
            f"ONNX Runtime cannot load {where}: {error}", "Run the stage that made it again."
        ) from None
