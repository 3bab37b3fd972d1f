"""What is shown of a run: tables and pages made from records, and silence outside of a run."""

from __future__ import annotations

from pathlib import Path

from components.storage.atomic import write_json
from flows.artifacts import publish_results, publish_verdict, publish_versions, results_table, verdict_markdown

VERDICT = {
    "format": 1,
    "passed": False,
    "kind": "champion",
    "reasons": ["quality: 0.08 is below 0.09 | by far"],
    "checks": [
        {"name": "quality", "passed": False, "limit": -0.002, "actual": -0.0123456789, "text": "NDCG@10"},
        {"name": "targets", "passed": True, "limit": 100, "actual": 943, "text": "enough\nof them"},
    ],
    "challenger": {"ndcg10": 0.08, "targets": 943},
    "champion": {"version": 2, "ndcg10": 0.09},
    "difference": {"estimate": -0.01, "low": -0.02, "high": 0.0},
}


def test_a_verdict_is_shown_with_every_number() -> None:
    text = verdict_markdown("movielens", VERDICT)
    assert text.startswith("# movielens: refused\n")
    assert "| quality | **no** | -0.002 | -0.0123457 | NDCG@10 |" in text
    assert "| targets | yes | 100 | 943 | enough of them |" in text
    assert "below 0.09 \\| by far" in text  # a bar ends no cell
    assert "| version |  | 2 |" in text and "[-0.02, 0] (95 %)" in text


def test_a_first_version_has_no_champion() -> None:
    text = verdict_markdown("movielens", {"passed": True, "checks": [], "reasons": [], "champion": None})
    assert text.startswith("# movielens: passed")


def test_the_result_table_marks_what_ships(tmp_path: Path) -> None:
    contenders = {"popularity": {"ndcg10": 0.04}, "pruned.int8": {"ndcg10": 0.1, "bytes": 7, "p50_ms": 0.1}}
    write_json(tmp_path / "metrics.json", {"contenders": contenders, "measures": [{"key": "ndcg10"}]})
    write_json(tmp_path / "choice.json", {"chosen": "pruned.int8"})
    first, second = results_table(tmp_path)
    assert (first["contender"], first["ships"], first["bytes"]) == ("pruned.int8", "yes", 7)
    assert (second["contender"], second["ships"], second["bytes"]) == ("popularity", "", "")


def test_outside_of_a_run_nothing_is_published(tmp_path: Path) -> None:
    publish_results("movielens", tmp_path)
    publish_verdict("movielens", VERDICT)
    publish_versions("movielens", [{"version": 1}])
