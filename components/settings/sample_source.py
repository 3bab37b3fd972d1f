"""``scenarios.*.source`` of samples with a label: values in, a label out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.settings.base import Settings


class _Samples(Settings):
    path: str
    """What ingest reads; DVC runs ingest again when it changes."""
    max_rejected_share: float = Field(default=0.01, ge=0, le=1)
    """The stage fails when a greater share of samples than this is bad."""

    @property
    def exclude(self) -> None:
        """Samples are of nobody who could be left out."""
        return None

    @property
    def as_of(self) -> None:
        """Samples have no time."""
        return None


class SyntheticSamplesSource(_Samples):
    """Samples with hard labels 0 and 1, drawn by a seeded generator from a rule that a network can learn."""

    kind: Literal["synthetic-samples"]
    """A seeded generator."""
    samples: int = Field(default=1000, ge=20)
    """How many samples."""
    features: int = Field(default=10, ge=4)
    """Values of a sample; the first four count."""
    seed: int = Field(default=0, ge=0)
    """Seed of the generator."""


class DigitsSource(_Samples):
    """scikit-learn's 1,797 handwritten digits of 8 x 8 grey values, which are installed with it."""

    kind: Literal["digits"]
    """What scikit-learn brings along."""


class IdxImagesSource(_Samples):
    """Images in the files that MNIST is published in: a folder with ``train-images-idx3-ubyte``,
    ``train-labels-idx1-ubyte`` and the same of ``t10k``, which are the test; each may be compressed (``.gz``)."""

    kind: Literal["idx-images"]
    """A folder of IDX files."""
    published: Literal["mnist"] | None = None
    """Refuse files whose content is not that of this published set. None: any images."""


class ImageFolderSource(_Samples):
    """One's own images: a folder a label with image files in it, read as grey values."""

    kind: Literal["image-folder"]
    """A folder of folders."""


SampleSource = SyntheticSamplesSource | DigitsSource | IdxImagesSource | ImageFolderSource
"""Any of them."""
