"""scikit-learn's handwritten digits: 1,797 images of 8 x 8 grey values, 0 to 16.

Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998; these are its
test images, of 13 writers.
"""

from __future__ import annotations

import hashlib
from importlib.resources import files

import numpy as np
import polars as pl

from components.data.rows import SourceFile
from components.data.samples import RawSamples
from components.errors import IntegrityError

_PACKAGE, _FILE = "sklearn.datasets.data", "digits.csv.gz"
SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"
_SIDE = 8


def read_digits() -> RawSamples:
    """All of them, in the order of the file.

    Raises:
        IntegrityError: What is installed is another file.
    """
    content = files(_PACKAGE).joinpath(_FILE).read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise IntegrityError(
            f"scikit-learn's {_FILE} has the digest {found[:12]}, not {SHA256[:12]}",
            "Install scikit-learn as requirements.lock says.",
        )
    table = pl.read_csv(content, has_header=False).to_numpy()
    return RawSamples(
        values=np.ascontiguousarray(table[:, :-1], dtype=np.float32),
        labels=pl.Series(table[:, -1].astype(int)).cast(pl.String),
        shape=(_SIDE, _SIDE),
        names=(),
        is_test=None,
        file=_FILE,
        about={
            "title": "Optical Recognition of Handwritten Digits",
            "home": "https://archive.ics.uci.edu/dataset/80",
            "licence": "CC-BY-4.0",
        },
        files=(SourceFile(_FILE, found, len(content)),),
    )
