from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.errors import DataError, IntegrityError
from components.storage.checkpoints import WEIGHTS_FILE, checkpoint_digest, read_checkpoint, write_checkpoint


def test_a_checkpoint_is_read_as_it_was_written_and_known_by_its_content(tmp_path: Path) -> None:
    weights = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.ones(2, dtype=torch.int64)}
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_checkpoint(tmp_path / name, {"dim": 3}, weights)
    record, found = read_checkpoint(tmp_path / "one")
    assert record == {"dim": 3}
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    assert checkpoint_digest(tmp_path / "one") == checkpoint_digest(tmp_path / "two")
    write_checkpoint(tmp_path / "two", {"dim": 3}, weights | {"b": torch.zeros(2, 3)})
    assert checkpoint_digest(tmp_path / "one") != checkpoint_digest(tmp_path / "two")


def test_weights_that_are_cut_short_or_gone_are_one_clear_error(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, {}, {"a": torch.ones(100)})
    path = tmp_path / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(IntegrityError, match="damaged"):
        read_checkpoint(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        read_checkpoint(tmp_path)
