"""Task ``image``: the values of an image say which of several labels it has."""

from __future__ import annotations

from typing import Any

from components.data.samples import SampleDataset
from components.errors import DataError
from components.tasks.contract import Wording
from components.tasks.samples import SampleTask


class Image(SampleTask):
    """A logit a label; the size of an image is that of the data."""

    name = "image"

    def __init__(self, dataset: SampleDataset, max_length: int = 0) -> None:
        super().__init__(dataset, max_length)
        if len(dataset.shape) != 2:
            shape = " x ".join(map(str, dataset.shape))
            raise DataError(
                f"an image has rows and columns, and these samples have {shape} values", "Choose another task."
            )

    @property
    def sizes(self) -> dict[str, Any]:
        """See :class:`SampleTask`; ``image`` is channels, rows and columns."""
        return {**super().sizes, "image": [1, *self.dataset.shape]}

    def wording(self) -> Wording:
        """For people."""
        rows, columns = self.dataset.shape
        return Wording(
            title="Image classification",
            tags=("image-classification",),
            summary=f"A classifier of images of {rows} x {columns} grey values",
            use="recstill predict PACKAGE --request '{\"values\": [...]}'",
            tested="labels of images that no training has seen",
            users="images",
            requests="test images",
            limits="It tells the labels it has learned, of images of the size and kind that it has learned from.",
        )
