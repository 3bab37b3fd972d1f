"""The 1,797 handwritten digits of 8 x 8 pixels that come with scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from components.data.rows import SourceFile
from components.data.samples import RawSamples
from components.errors import IntegrityError
from components.storage.digests import array_digest

SHA256 = "74d79f7d6092b0ff71fdc481b01f01d18f31843ae73e44de08c2eb26fcb5e1b2"
"""Over the pixels, ``(1797, 64)`` float32."""


def read_digits() -> tuple[RawSamples, list[SourceFile], dict[str, Any]]:
    """Pixels from 0 to 16, labels from 0 to 9.

    Raises:
        IntegrityError: The installed scikit-learn holds other images.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    found = array_digest(np.ascontiguousarray(pixels, dtype=np.float32))
    if found != SHA256:
        raise IntegrityError(
            f"the digits of scikit-learn are others than expected: {found}", "Install requirements.lock."
        )
    about = {
        "title": "Optical recognition of handwritten digits",
        "home": "https://archive.ics.uci.edu/dataset/80",
        "licence": "CC BY 4.0",
        "citation": "Alpaydin and Kaynak, 1998",
    }
    raw = RawSamples(pixels, pl.Series(labels.tolist()).cast(pl.String), (1, 8, 8), (), None, "digits")
    return raw, [], about
