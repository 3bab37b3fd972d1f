from pathlib import Path

import numpy as np
import pytest

from components.errors import DataError
from components.evaluation.report_data import curve_table, popularity_table
from components.evaluation.scoring import Ranking


def ranked(targets: np.ndarray, ranks: np.ndarray) -> Ranking:
    return Ranking(np.arange(len(targets)), targets, ranks, ranks, 1.0, 1.0)


def test_ranges_of_popularity_hold_about_as_many_targets_each() -> None:
    counts = np.arange(100)
    targets = np.random.default_rng(0).permutation(np.arange(100).repeat(3))
    ranks = np.where(counts[targets] >= 60, 0, 50)
    table = popularity_table({"one": ranked(targets, ranks)}, counts)
    assert table["targets"].sum() == 300
    assert table["targets"].max() - table["targets"].min() <= 6
    assert table["most"].to_list()[:-1] < table["fewest"].to_list()[1:]
    assert table["ndcg10"].to_list()[0] == 0
    assert table["ndcg10"].to_list()[-1] == 1


def test_targets_of_one_popularity_stay_together() -> None:
    counts = np.array([5, 5, 5, 9])
    table = popularity_table({"one": ranked(np.array([0, 1, 2, 2, 3]), np.zeros(5, dtype=int))}, counts)
    assert list(zip(table["fewest"], table["most"], table["targets"], strict=True)) == [(5, 5, 4), (9, 9, 1)]


def test_curves_of_all_stages_are_one_table(tmp_path: Path) -> None:
    header = "network,epoch,train_loss,validation_ndcg10\n"
    (tmp_path / "a.csv").write_text(header + "member-0,0,3,0.5\n")
    (tmp_path / "b.csv").write_text(header + "student,0,2.5,1\n")
    assert curve_table(tmp_path)["network"].to_list() == ["member-0", "student"]
    assert curve_table(tmp_path / "none").is_empty()
    (tmp_path / "c.csv").write_text("something,else\n1,2\n")
    with pytest.raises(DataError, match="training curve"):
        curve_table(tmp_path)
