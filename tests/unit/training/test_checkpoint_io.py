import math
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from components.errors import IntegrityError
from components.training.checkpoint_io import SafetensorsCheckpointIO

IO = SafetensorsCheckpointIO()


def test_a_nested_checkpoint_comes_back_exactly(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    checkpoint = {
        "epoch": 3,
        "none": None,
        "flags": (True, False),
        "floats": [0.1, 1e-308, math.inf, -math.inf],
        "optimizer": {"state": {0: {"step": torch.tensor(7.0), "exp_avg": shared.t()}, 1: {}}},
        "betas": [("a", 0.9), ("b", [])],
        "weights": OrderedDict(w=shared, same=shared, half=torch.ones(2, dtype=torch.bfloat16)),
        "text": ["tensor", "not one"],
        "bytes": torch.get_rng_state(),
    }
    IO.save_checkpoint(checkpoint, tmp_path / "state")
    again = IO.load_checkpoint(tmp_path / "state")
    assert set(again) == set(checkpoint)
    for key in ("epoch", "none", "flags", "floats", "betas", "text"):
        assert again[key] == checkpoint[key] and type(again[key]) is type(checkpoint[key])
    assert list(again["optimizer"]["state"]) == [0, 1]
    assert torch.equal(again["optimizer"]["state"][0]["exp_avg"], shared.t())
    assert torch.equal(again["weights"]["same"], shared) and again["weights"]["half"].dtype == torch.bfloat16
    assert torch.equal(again["bytes"], checkpoint["bytes"])


def test_what_is_neither_tensor_nor_plain_data_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="module"):
        IO.save_checkpoint({"module": torch.nn.Linear(1, 1)}, tmp_path / "state")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 4, 200])
def test_a_file_that_is_cut_short_is_named_damaged(tmp_path: Path, size: int) -> None:
    path = tmp_path / "state"
    IO.save_checkpoint({"weights": torch.randn(100)}, path)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(IntegrityError, match="damaged"):
        IO.load_checkpoint(path)
