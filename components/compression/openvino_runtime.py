"""OpenVINO, which is an optional extra: what it says when it is missing, and how a stored form is run."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import IntegrityError, RecstillError
from components.tasks.batch import Feed

GRAPH, WEIGHTS, RECORD = "model.xml", "model.bin", "openvino.json"


def library(name: str) -> Any:
    """``openvino`` or ``nncf``, imported.

    Raises:
        RecstillError: It is not installed.
    """
    os.environ.setdefault("NNCF_CI", "1")  # Or NNCF tells its makers each time that it is used.
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise RecstillError(
            f"{name} is not installed: it comes with the extra `openvino`",
            "Install it: pip install 'recstill[openvino]' (in a checkout: .venv/bin/pip install -e '.[openvino]').",
        ) from None


def compiled(graph: bytes, weights: bytes, threads: int = 1) -> Callable[[Feed], np.ndarray]:
    """A function from a feed to scores ``(batch, K)``, on the CPU; what it gives is overwritten by the next call.

    Args:
        graph: The bytes of ``model.xml``.
        weights: Those of ``model.bin``.
        threads: Of the processor.

    Raises:
        IntegrityError: The bytes are damaged.
        RecstillError: OpenVINO is not installed.
    """
    openvino = library("openvino")
    core = openvino.Core()
    options = {
        # On processors that can, it would compute with 8 bits of mantissa.
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
    }
    try:
        request = core.compile_model(core.read_model(graph, weights), "CPU", options).create_infer_request()
    # All that its C++ part throws.
    except RuntimeError as error:
        raise IntegrityError(f"OpenVINO cannot load the model: {error}", "Run `quantize` again.") from None

    def run(feed: Feed) -> np.ndarray:
        scores: np.ndarray = request.infer(feed, share_inputs=True, share_outputs=True)[0]
        return scores

    return run


def compiled_folder(folder: Path, threads: int = 1) -> Callable[[Feed], np.ndarray]:
    """See :func:`compiled`; ``model.xml`` and ``model.bin`` lie in ``folder``."""
    return compiled((folder / GRAPH).read_bytes(), (folder / WEIGHTS).read_bytes(), threads)
