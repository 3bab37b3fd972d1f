"""A model that searches its items, as it is served: the encoder in ONNX Runtime, then the index."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime

from components.compression.item_index import INDEX_KEY, ItemIndex, index_beside
from components.errors import IntegrityError
from components.tasks.answering import Found


class ItemSearch:
    """An encoder and its index.

    Args:
        session: The encoder.
        index: Of as wide vectors as the encoder gives.

    Attributes:
        items: K, of the index.

    Raises:
        IntegrityError: The two do not fit.
    """

    def __init__(self, session: onnxruntime.InferenceSession, index: ItemIndex) -> None:
        (output,) = session.get_outputs()
        if output.shape[1] != index.dim:
            raise IntegrityError(f"the model gives vectors of {output.shape[1]} values, and the index has {index.dim}")
        self._session, self._index, self._output = session, index, output.name
        self.items = index.items

    def found(self, feed: dict[str, np.ndarray], wanted: Sequence[int]) -> list[Found]:
        """The best items of each row of a feed, as many as are wanted of it, or all that there are.

        Raises:
            IntegrityError: A vector is not finite.
        """
        vectors = self._session.run([self._output], feed)[0]
        if not np.isfinite(vectors).all():
            raise IntegrityError("the model gives no finite vectors", "Do not serve it.")
        return self._index.search(vectors, wanted)


def item_search(session: onnxruntime.InferenceSession, read_index: Callable[[], bytes]) -> ItemSearch | None:
    """The search of a model; None of one whose graph scores all items itself.

    Args:
        session: Of the model.
        read_index: Gives the bytes of its index; asked for when it has one.

    Raises:
        IntegrityError: The index is not the one that the model was made with.
        SettingsError: The library faiss is not installed.
    """
    digest = session.get_modelmeta().custom_metadata_map.get(INDEX_KEY)
    return None if digest is None else ItemSearch(session, ItemIndex.loaded(read_index(), digest))


def item_search_of(model: Path, session: onnxruntime.InferenceSession) -> ItemSearch | None:
    """As :func:`item_search`, of a file with its index beside it.

    Raises:
        IntegrityError: The index is missing, or not the one that the model was made with.
        SettingsError: The library faiss is not installed.
    """

    def read() -> bytes:
        path = index_beside(model)
        try:
            return path.read_bytes()
        except OSError as error:
            raise IntegrityError(
                f"{path}, the index of {model.name}, cannot be read: {error.strerror}",
                "Run the stage that made it again.",
            ) from None

    return item_search(session, read)
