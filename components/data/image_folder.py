"""One's own images: a folder a label, an image a file, read as grey values from 0 to 255."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from components.data.rows import source_file
from components.data.samples import RawSamples
from components.errors import DataError

SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".gif", ".tif", ".tiff", ".webp")


def read_image_folder(folder: Path) -> RawSamples:
    """Images in the order of their labels and names; the label is the folder's name.

    The size is that of most images. An image of another size, or a file that is no image, is a faulty sample.

    Raises:
        DataError: There is no folder, or no image in it.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", "`source.path` is a folder with a folder of images a label.")
    paths = sorted(path for path in folder.glob("*/*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(
            f"there is no image in the folders below {folder}", f"Bring files that end in {', '.join(SUFFIXES)}."
        )
    images: list[np.ndarray | None] = []
    faults: dict[int, str] = {}
    for number, path in enumerate(paths):
        try:
            with Image.open(path) as opened:
                images.append(np.asarray(opened.convert("L")))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            images.append(None)
            faults[number] = f"cannot be read as an image ({type(error).__name__})"
    sizes = Counter(image.shape for image in images if image is not None)
    if not sizes:
        raise DataError(f"no file below {folder} can be read as an image", f"Look at {paths[0]}.")
    # Of sizes that are equally common, the smaller: what is decided must not depend on the order of files.
    shape = min(sizes, key=lambda size: (-sizes[size], size))
    values = np.zeros((len(paths), shape[0] * shape[1]), dtype=np.float32)
    for number, image in enumerate(images):
        if image is None:
            continue
        if image.shape == shape:
            values[number] = image.reshape(-1)
        else:
            faults[number] = f"the image is {_size(image.shape)}, most are {_size(shape)}"
    return RawSamples(
        values=values,
        labels=pl.Series([path.parent.name for path in paths], dtype=pl.String),
        shape=shape,
        names=(),
        is_test=None,
        file=pl.Series([path.relative_to(folder).as_posix() for path in paths], dtype=pl.String),
        about={"title": f"Images of {folder.name}"},
        files=tuple(source_file(path) for path in paths),
        faults=faults,
    )


def _size(shape: tuple[int, ...]) -> str:
    """Rows by columns."""
    return " x ".join(map(str, shape))
