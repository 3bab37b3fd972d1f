"""A package whose model is asked in batches through OpenVINO, in the place of its own ONNX file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.compression.openvino_runtime import GRAPH, RECORD, WEIGHTS, compiled
from components.errors import DataError, IntegrityError
from components.serving.asking import AskedModel
from components.serving.predictor import Predictor
from components.storage.atomic import read_json


class BatchPredictor(Predictor):
    """Vocabulary and form of requests are the package's; scores come from the folder that ``quantize`` has written.

    Its answers are those of other bytes than the package's, so that close scores may change places; golden requests are
    not held against them.

    Args:
        package: The package.
        folder: ``quantized/openvino`` of the run that made it.
        threads: Of the processor.

    Raises:
        DataError: A folder is not what it should be.
        IntegrityError: A file is damaged, or the two are not of one pruned student.
        RecstillError: The extra ``openvino`` is not installed.
    """

    def __init__(self, package: Path, folder: Path, threads: int = 1) -> None:
        super().__init__(package, threads)
        if not (folder / RECORD).is_file():
            raise DataError(
                f"{folder} has no {RECORD}", "Set `quantization.openvino: true`, run, and name quantized/openvino."
            )
        record = read_json(folder / RECORD)
        if record["from_digest"] != self.record["lineage"].get("pruned"):
            raise IntegrityError(
                f"{folder} was made of another student than {package}", "Take both from the artifacts of one run."
            )
        graph, weights = (self._verified(folder / name, record["files"][name]["sha256"]) for name in (GRAPH, WEIGHTS))
        self._compiled = compiled(graph, weights, threads)

    def told(self, asked: Sequence[tuple[Any, Any]]) -> list[Any]:
        """See :class:`AskedModel`; an index of the package is not searched."""
        return AskedModel.told(self, asked)

    def scores(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Scores ``(questions, K)``.

        Raises:
            IntegrityError: The model gives no finite scores.
        """
        scores = self._compiled(feed).copy()
        if not np.isfinite(scores.max(axis=1)).all():
            raise IntegrityError("the model for batches gives no finite scores", "Do not use it.")
        return scores

    @staticmethod
    def _verified(path: Path, expected: str) -> bytes:
        content = path.read_bytes() if path.is_file() else b""
        if hashlib.sha256(content).hexdigest() != expected:
            raise IntegrityError(f"{path} is missing, or not the file that was made", "Run `quantize` again.")
        return content
