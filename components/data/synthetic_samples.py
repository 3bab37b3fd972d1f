"""Samples drawn from a known rule with noise, so that the whole pipeline can be followed by hand in seconds.

The rule has a product and a wave in it: a linear model cannot follow it, and a small network can.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from components.data.samples import RawSamples
from components.settings.sample_source import SyntheticSamplesSource


def log_odds(values: np.ndarray) -> np.ndarray:
    """The rule: log of the odds of label 1, ``(N,)``, from ``(N, D)`` values, D at least 4."""
    a, b, c, d = values.T[:4]
    return 3.0 * (1.2 * a * b + 1.5 * np.sin(1.5 * c) + 0.8 * d)


def draw_samples(settings: SyntheticSamplesSource) -> RawSamples:
    """Normal values, and hard labels 0 and 1 that follow the rule by chance; always the same for the same settings."""
    random = np.random.default_rng(settings.seed)
    values = random.standard_normal((settings.samples, settings.features)).round(4)
    label = random.random(settings.samples) < 1 / (1 + np.exp(-log_odds(values)))
    names = tuple(f"x{number}" for number in range(1, settings.features + 1))
    labels = pl.Series(label.astype(int)).cast(pl.String)
    about = {"title": "Synthetic samples"}
    return RawSamples(values, labels, (settings.features,), names, None, "synthetic", about)
