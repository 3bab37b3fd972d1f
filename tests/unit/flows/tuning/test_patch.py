from __future__ import annotations

import pytest
import yaml

from components.errors import SettingsError
from flows.tuning.patch import REMOVED, diff_of, patched
from tests.stage_modules import ROOT

TEXT = (ROOT / "params.yaml").read_text()
LOSSES = {"losses": [{"kind": "cross_entropy", "weight": 1.0}, {"kind": "correlation"}]}


def test_nothing_to_change_leaves_every_byte_of_the_file() -> None:
    assert patched(TEXT, "movielens", {}) == TEXT
    assert patched(TEXT, "movielens", {"student.network.dim": 32, "budget.max_bytes": REMOVED}) == TEXT
    assert diff_of(TEXT, TEXT) == ""


def test_a_recipe_changes_its_own_lines_and_no_others() -> None:
    changes = {
        "student.network.dim": 24,
        "pruning.heads_ratio": 0.0,
        "distillation": LOSSES,
        "quantization.variants": ["int4_table4"],
        "budget.max_bytes": 20_000,
        "budget.max_bytes_ratio": REMOVED,
    }
    after = patched(TEXT, "movielens", changes)
    movielens, before = (yaml.safe_load(text)["scenarios"]["movielens"] for text in (after, TEXT))
    assert movielens["student"]["network"] == {**before["student"]["network"], "dim": 24}
    assert movielens["distillation"] == LOSSES and movielens["quantization"] == {"variants": ["int4_table4"]}
    assert movielens["budget"] == {"max_latency_ratio": 0.3, "max_bytes": 20_000}
    assert yaml.safe_load(after)["scenarios"]["binary"] == yaml.safe_load(TEXT)["scenarios"]["binary"]
    lines = [line for line in diff_of(TEXT, after).splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    assert len(lines) <= 14, "\n".join(lines)
    assert [line for line in TEXT.splitlines() if "#" in line] == [line for line in after.splitlines() if "#" in line]


def test_a_file_with_lists_at_the_indent_of_their_key_keeps_it() -> None:
    text = TEXT.replace("        - {kind", "      - {kind")
    after = patched(text, "binary", {"student.network.hidden": [16]})
    assert len(diff_of(text, after).splitlines()) < 14 and "hidden: [16]" in after


def test_what_would_not_be_valid_is_refused() -> None:
    with pytest.raises(SettingsError, match="heads"):
        patched(TEXT, "movielens", {"student.network.dim": 31})
