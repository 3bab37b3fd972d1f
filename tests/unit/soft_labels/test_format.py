"""The bytes of a cache are held fast: its id says nothing of the code that wrote it.

Finished parts are taken over whatever version of Recstill wrote them. Whoever changes what is written, on purpose,
raises ``FORMAT`` in ``components/soft_labels/manifest.py`` and then what stands here.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from components.soft_labels.codecs.building import codec_of
from components.soft_labels.manifest import FORMAT, CacheIdentity
from components.soft_labels.parts import uniforms_of

IDENTITY = CacheIdentity(teacher="a" * 64, dataset="b" * 64, codec={"name": "dense"}, outcomes=9, rows_per_part=10)
ROWS = 7
WRITTEN: dict[str, tuple[dict[str, str], list[int], list[float]]] = {
    "dense": ({"log_probs": "<f2[7, 333]"}, [], [-11.32, -5.07, -6.445, -7.82]),
    "logit": ({"logit": "<f2[7]"}, [], [0.0, 6.25, 4.875, 3.5]),
    "top_k_tail": (
        {"ids": "<u2[7, 8]", "log_probs": "<f2[7, 8]", "tail": "<f2[7]"},
        [50, 111, 172, 233, 294, 39, 100, 161],
        [-3.818, -3.818, -3.818, -3.818],
    ),
    "sampled": (
        {"ids": "<u2[7, 8]", "log_probs": "<f2[7, 8]", "log_tau": "<f2[7]"},
        [240, 123, 246, 129, 111, 233, 156, 39],
        [-5.82, -5.07, -6.445, -5.695],
    ),
    "top_k_sampled": (
        {"ids": "<u2[7, 8]", "log_probs": "<f2[7, 8]", "log_tau": "<f2[7]"},
        [50, 111, 172, 101, 285, 289, 313, 118],
        [-3.818, -3.818, -3.818, -5.32],
    ),
}


def logits(outcomes: int) -> torch.Tensor:
    """Whole numbers of eighths, far from every rounding to a half that another processor might decide differently."""
    places = np.arange(ROWS * outcomes).reshape(ROWS, outcomes)
    return torch.from_numpy(((places * 7919) % 61).astype(np.float32) / 8)


@pytest.mark.parametrize("name", ["dense", "logit", "top_k_tail", "sampled", "top_k_sampled"])
def test_a_codec_writes_what_it_always_wrote(name: str) -> None:
    outcomes = 1 if name == "logit" else 333
    codec = codec_of({"name": name, "k": 8, "head": 3}, outcomes)
    columns = codec.encode(logits(outcomes), uniforms=np.full((ROWS, 1), 0.37))
    form = {name: f"{column.dtype.str}{list(column.shape)}" for name, column in columns.items()}
    ids = columns["ids"][0].tolist() if "ids" in columns else []
    # The last bit of a half is the processor's to say, so numbers are not held by a digest.
    numbers = next(column for name, column in columns.items() if name in ("log_probs", "logit")).ravel()[:4]
    assert (FORMAT, form, ids) == (2, *WRITTEN[name][:2]), "raise FORMAT when the bytes of a part change"
    np.testing.assert_allclose(numbers, WRITTEN[name][2], atol=0.01)


def test_random_numbers_are_what_they_always_were() -> None:
    numbers = uniforms_of(IDENTITY, 3, 4, 1)
    assert numbers is not None
    assert (FORMAT, [round(number, 6) for number in numbers[:, 0].tolist()]) == (
        2,
        [0.403371, 0.303976, 0.589554, 0.028228],
    )
