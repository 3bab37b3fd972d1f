"""From ``scenarios.*.source`` of samples with a label to the samples."""

from __future__ import annotations

from pathlib import Path

from components.data.samples import RawSamples
from components.settings.sample_source import DigitsSource, IdxImagesSource, ImageFolderSource, SampleSource


def open_samples(settings: SampleSource, root: Path) -> RawSamples:
    """Read all samples of a source.

    Args:
        settings: ``scenarios.<scenario>.source``.
        root: The checkout, which relative paths start from.

    Raises:
        DataError: The source is not there, or cannot be read.
        IntegrityError: It is not what was published.
    """
    if isinstance(settings, DigitsSource):
        from components.data.digit_images import read_digits

        return read_digits()
    if isinstance(settings, IdxImagesSource):
        from components.data.idx_images import read_idx_images

        return read_idx_images(root / settings.path, settings.published)
    if isinstance(settings, ImageFolderSource):
        from components.data.image_folder import read_image_folder

        return read_image_folder(root / settings.path)
    from components.data.synthetic_samples import draw_samples

    return draw_samples(settings)
