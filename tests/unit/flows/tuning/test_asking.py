from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import RecstillError
from flows.tuning.asking import ENDING, InterruptedWorkError, ask


def test_a_process_that_dies_is_told_with_its_last_words_and_its_log(tmp_path: Path) -> None:
    with pytest.raises(RecstillError) as failure:
        ask("no_such_module", {}, tmp_path)
    assert "ended with status 1" in str(failure.value) and "No module named" in str(failure.value)
    assert str(tmp_path / "no_such_module.log") in str(failure.value)


def test_what_ends_after_ctrl_c_was_interrupted_and_has_not_failed(tmp_path: Path) -> None:
    ENDING.set()
    try:
        with pytest.raises(InterruptedWorkError):
            ask("no_such_module", {}, tmp_path)
    finally:
        ENDING.clear()
