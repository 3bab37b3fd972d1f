from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from components.errors import DataError
from components.evaluation.report_data import curve_table, strata_table
from components.tasks.contract import Judgement
from components.tasks.full_ranking import popularity_strata


def judged(targets: np.ndarray, values: np.ndarray) -> Judgement:
    return Judgement(np.arange(len(targets)), targets, values.astype(float), {})


def test_ranges_of_popularity_hold_about_as_many_targets_each() -> None:
    counts = np.arange(100)
    targets = np.random.default_rng(0).permutation(np.arange(100).repeat(3))
    values = np.where(counts[targets] >= 60, 1, 0)
    table = strata_table({"one": judged(targets, values)}, popularity_strata(targets, counts))
    assert table["targets"].sum() == 300
    assert table["targets"].max() - table["targets"].min() <= 6
    ends = [tuple(map(int, group.split("-"))) for group in table["group"]]
    assert all(most < fewest for (_, most), (fewest, _) in pairwise(ends))
    assert table["quality"].to_list()[0] == 0
    assert table["quality"].to_list()[-1] == 1


def test_targets_of_one_popularity_stay_together() -> None:
    targets = np.array([0, 1, 2, 2, 3])
    table = strata_table({"one": judged(targets, np.ones(5))}, popularity_strata(targets, np.array([5, 5, 5, 9])))
    assert list(zip(table["group"], table["targets"], strict=True)) == [("5", 4), ("9", 1)]


def test_curves_of_all_stages_are_one_table(tmp_path: Path) -> None:
    header = "network,epoch,train_loss,validation\n"
    (tmp_path / "a.csv").write_text(header + "member-0,0,3,0.5\n")
    (tmp_path / "b.csv").write_text(header + "student,0,2.5,1\n")
    assert curve_table(tmp_path)["network"].to_list() == ["member-0", "student"]
    assert curve_table(tmp_path / "none").is_empty()
    (tmp_path / "c.csv").write_text("something,else\n1,2\n")
    with pytest.raises(DataError, match="training curve"):
        curve_table(tmp_path)
