"""Images in IDX files, the form in which LeCun, Cortes and Burges published MNIST: training and test kept apart.

A file is a big-endian header, two zero bytes, the type of the values (8: unsigned bytes), the number of axes and the
size of each, and then the values.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from pathlib import Path

import numpy as np
import polars as pl

from components.data.rows import source_file
from components.data.samples import RawSamples
from components.errors import DataError, IntegrityError

_PARTS = ("train", "t10k")
_IMAGES, _LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
# SHA-256 of the uncompressed files: their compressed forms are not the same everywhere.
PUBLISHED = {
    "mnist": {
        "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    }
}
_ABOUT = {
    "mnist": {
        "title": "MNIST",
        "home": "http://yann.lecun.com/exdb/mnist/",
        "licence": "CC-BY-SA-3.0",
    }
}


def read_idx_images(folder: Path, published: str | None = None) -> RawSamples:
    """The images of ``train`` and ``t10k``; the latter are the test.

    Args:
        folder: Where the four files lie, each as it is or with ``.gz``.
        published: The content has to be that of this published set.

    Raises:
        DataError: A file is missing, cut short or of another form; images and labels are not equally many; the test
            images have another size.
        IntegrityError: It is not the published set.
    """
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    files = []
    for part in _PARTS:
        for name, axes, found in ((_IMAGES, 3, images), (_LABELS, 1, labels)):
            path = _place(folder, name.format(part))
            found.append(_read(path, axes, name.format(part), published))
            files.append(source_file(path))
        if len(images[-1]) != len(labels[-1]):
            raise DataError(
                f"{folder} has {len(images[-1]):,} images and {len(labels[-1]):,} labels of {part!r}",
                "Bring files that belong together.",
            )
    train, test = (part.shape[1:] for part in images)
    if train != test:
        raise DataError(
            f"row 1 of {_IMAGES.format('t10k')} is an image of {_size(test)} pixels; those of "
            f"{_IMAGES.format('train')} have {_size(train)}",
            "Bring images of one size.",
        )
    values = np.concatenate([part.reshape(len(part), -1) for part in images])
    return RawSamples(
        values=values.astype(np.float32),
        labels=pl.Series(np.concatenate(labels)).cast(pl.String),
        shape=tuple(int(side) for side in train),
        names=(),
        is_test=np.repeat([False, True], [len(part) for part in images]),
        file=folder.name,
        about=_ABOUT[published] if published else {"title": f"Images of {folder.name}"},
        files=tuple(files),
    )


def _place(folder: Path, name: str) -> Path:
    places = [folder / name, folder / f"{name}.gz"]
    for path in places:
        if path.is_file():
            return path
    raise DataError(
        f"there is neither {places[0]} nor {places[1].name} beside it",
        "`source.path` is the folder of the four files; see docs/tasks.md.",
    )


def _read(path: Path, axes: int, name: str, published: str | None) -> np.ndarray:
    """Values of one file, uint8."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}", "Fetch it again.") from None
    if published and hashlib.sha256(content).hexdigest() != PUBLISHED[published][name]:
        raise IntegrityError(
            f"{path} is not the {name} of {published}: its content has another SHA-256",
            "Fetch it again, or take `published` out of the source.",
        )
    start = 4 + 4 * axes
    if content[:4] != bytes((0, 0, 8, axes)) or len(content) < start:
        raise DataError(f"{path} is no IDX file of unsigned bytes with {axes} axes", "Bring files as MNIST has them.")
    sizes = np.frombuffer(content, ">u4", axes, offset=4).tolist()
    if len(content) - start != math.prod(sizes):
        raise DataError(
            f"{path} says that it holds {_size(sizes)} values, and holds {len(content) - start:,}", "Fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)


def _size(sides: tuple[int, ...] | list[int]) -> str:
    return " x ".join(map(str, sides))
