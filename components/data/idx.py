"""MNIST from its own files: the IDX format, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from components.data.samples import RawSamples
from components.errors import DataError, IntegrityError

_NAMES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_UNSIGNED_BYTES = 0x08


def idx_files(folder: Path) -> list[Path]:
    """The four files, images before labels, training before test.

    Raises:
        DataError: One is missing.
    """
    found = []
    for name in _NAMES:
        candidates = [folder / name, folder / f"{name}.gz", folder / name.replace("-idx", ".idx")]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise DataError(f"{folder} has no {name}, plain or .gz", "Put the four files of MNIST there.")
        found.append(path)
    return found


def read_mnist(files: Sequence[Path]) -> RawSamples:
    """Training images, then test images.

    Args:
        files: Of :func:`idx_files`.

    Raises:
        IntegrityError: A file is not of the format, or there are other images than labels.
    """
    images, labels, test_images, test_labels = (read_idx(path) for path in files)
    if len(images) != len(labels) or len(test_images) != len(test_labels):
        raise IntegrityError(f"{files[0].parent} has other numbers of images than of labels", "Fetch the files again.")
    if images.shape[1:] != test_images.shape[1:]:
        raise IntegrityError(
            f"images of {images.shape[1:]} pixels for training and of {test_images.shape[1:]} for the test",
            "Fetch the files again.",
        )
    pixels = np.concatenate([images, test_images])
    is_test = np.arange(len(pixels)) >= len(images)
    names = pl.Series(np.concatenate([labels, test_labels])).cast(pl.String)
    shape = (1, *images.shape[1:])
    return RawSamples(pixels.reshape(len(pixels), -1).astype(np.float64), names, shape, (), is_test, "mnist")


def read_idx(path: Path) -> np.ndarray:
    """One file of unsigned bytes.

    Raises:
        IntegrityError: It is not of the format.
    """
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zero, kind, axes = struct.unpack(">HBB", content[:4])
        shape = struct.unpack(f">{axes}I", content[4 : 4 + 4 * axes])
    except (OSError, struct.error, EOFError) as error:
        raise IntegrityError(f"{path} is no IDX file: {error}", "Fetch it again.") from None
    body = content[4 + 4 * axes :]
    if zero or kind != _UNSIGNED_BYTES or len(body) != math.prod(shape):
        raise IntegrityError(f"{path} is no IDX file of unsigned bytes, or is cut off", "Fetch it again.")
    return np.frombuffer(body, dtype=np.uint8).reshape(shape)
