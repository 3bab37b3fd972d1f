"""Answers from a package alone: no checkout, no torch, and no byte that was not verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.errors import IntegrityError
from components.evaluation.onnx_session import new_session
from components.serving.asking import AskedModel, replay
from components.serving.package_folder import MODEL, SIGNATURE, PackageFolder
from components.tasks.building import answering_of


class Predictor(AskedModel):
    """A loaded package.

    Args:
        folder: The package.
        threads: Threads within one operator of the model.

    Attributes:
        record: ``package.json``: what the model is, and what it was made from.
        signature: ``signature.json``: what its graph and its requests are like.
        answering: How it is asked.

    Raises:
        DataError: The folder is no package.
        IntegrityError: A file is missing, damaged, or not the one that the package was made with.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._package = PackageFolder(Path(folder))
        self.record: dict[str, Any] = self._package.record
        self.signature: dict[str, Any] = json.loads(self._package.read(SIGNATURE))
        self.answering = answering_of(str(self.record["task"]))(self._package.read, self.signature)
        self._output = str(self.signature["outputs"][0]["name"])
        self._session = new_session(self._package.read(MODEL), threads)

    def replay_golden(self) -> int:
        """Answer the package's golden requests again; see :func:`components.serving.asking.replay`."""
        return replay(self, self._package)

    def scores(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Scores ``(questions, K)``.

        Raises:
            IntegrityError: The model fails, or gives no finite scores.
        """
        try:
            scores: np.ndarray = np.array(self._session.run([self._output], feed)[0])
        # ONNX Runtime derives each of its errors straight from Exception, in a private module.
        except Exception as error:
            raise IntegrityError(f"{self._package.folder}: the model fails: {error}", "Do not serve it.") from None
        if not np.isfinite(scores.max(axis=1)).all():
            raise IntegrityError(f"{self._package.folder}: the model gives no finite scores", "Do not serve it.")
        return scores
