"""Answers from a package alone: no checkout, no torch, and no byte that was not verified."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from components.errors import IntegrityError, RecstillError
from components.evaluation.onnx_session import new_session
from components.evaluation.searching import item_search
from components.serving.asking import AskedModel, replay
from components.serving.package_folder import INDEX, MODEL, SIGNATURE, PackageFolder
from components.tasks.answering import Retrieving
from components.tasks.building import answering_of

Result = TypeVar("Result")


class Predictor(AskedModel):
    """A loaded package. Where it has an index, items are searched for, in one thread a request.

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
        SettingsError: The package has an index, and the library faiss is not installed.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self._package = PackageFolder(Path(folder))
        self.record: dict[str, Any] = self._package.record
        self.signature: dict[str, Any] = json.loads(self._package.read(SIGNATURE))
        self.answering = answering_of(str(self.record["task"]))(self._package.read, self.signature)
        self._output = str(self.signature["outputs"][0]["name"])
        self._session = new_session(self._package.read(MODEL), threads)
        self._search = item_search(self._session, lambda: self._package.read(INDEX))
        if self._search is not None:
            if not isinstance(self.answering, Retrieving):
                raise IntegrityError(f"{folder}: a package with an index has to answer with outcomes of a catalogue")
            if self._search.items != self.signature["items"]:
                raise IntegrityError(f"the index has {self._search.items} items, not {self.signature['items']}")

    def replay_golden(self) -> int:
        """Answer the package's golden requests again; see :func:`components.serving.asking.replay`."""
        return replay(self, self._package)

    def told(self, asked: Sequence[tuple[Any, Any]]) -> list[Any]:
        """See :class:`AskedModel`; an index gives the best items alone."""
        search, answering = self._search, self.answering
        if search is None or not isinstance(answering, Retrieving):
            return super().told(asked)
        feed = answering.feed([parsed for _, parsed in asked])
        wanted = [answering.enough(*pair) for pair in asked]
        found = self._run(lambda: search.found(feed, wanted))
        return [answering.answer_found(*pair, best) for pair, best in zip(asked, found, strict=True)]

    def scores(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """Scores ``(questions, K)``.

        Raises:
            IntegrityError: The model fails, or gives no finite scores.
        """
        scores: np.ndarray = self._run(lambda: np.array(self._session.run([self._output], feed)[0]))
        if not np.isfinite(scores.max(axis=1)).all():
            raise IntegrityError(f"{self._package.folder}: the model gives no finite scores", "Do not serve it.")
        return scores

    def _run(self, model: Callable[[], Result]) -> Result:
        try:
            return model()
        except RecstillError:
            raise
        # ONNX Runtime derives each of its errors straight from Exception, in a private module.
        except Exception as error:
            raise IntegrityError(f"{self._package.folder}: the model fails: {error}", "Do not serve it.") from None
