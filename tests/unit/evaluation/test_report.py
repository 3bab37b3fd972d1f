import json
import re
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest

from components.errors import BudgetError
from components.stages.evaluate import work
from components.stages.workspace import Workspace
from components.storage.atomic import write_json
from components.storage.digests import file_digest
from tests.unit.evaluation.conftest import PARAMS

COLUMNS = {
    *("ndcg10", "recall10", "mrr", "coverage10"),
    *("ndcg10_seen_kept", "recall10_seen_kept", "mrr_seen_kept", "coverage10_seen_kept"),
    *("difference", "difference_low", "difference_high", "retention", "retention_low", "retention_high"),
    *("parameters", "bytes", "bytes_ratio", "p50_ms", "p95_ms", "p99_ms", "latency_ratio", "throughput", "peak_mib"),
    *("ndcg10_standard_error", "training_seconds"),
}


def read(path: Path) -> dict:
    return json.loads(path.read_text())


class Page(HTMLParser):
    """Open tags, and every address that a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "br", "img", "input"):
            self.open.append(tag)
        for key, value in attrs:
            if key in ("src", "href", "xlink:href", "data") and not (value or "").startswith("#"):
                self.fetched.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_every_network_has_every_figure(report: Path) -> None:
    contenders = read(report / "metrics.json")["contenders"]
    for name in ("teacher", "teacher_member", "baseline", "student", "pruned", "pruned.int8_dynamic"):
        assert set(contenders[name]) == COLUMNS, name
    assert contenders["teacher"]["difference"] == contenders["teacher"]["difference_high"] == 0
    assert contenders["teacher"]["retention"] == 1
    assert set(contenders["popularity"]) >= {"ndcg10", "difference_low"}
    assert "bytes" not in contenders["item_knn"]


def test_the_headline_is_of_what_ships(report: Path) -> None:
    metrics, choice = read(report / "metrics.json"), read(report / "choice.json")
    shipped = metrics["contenders"][choice["chosen"]]
    assert metrics["shipped_ndcg10"] == shipped["ndcg10"]
    assert metrics["shipped_retention"] == shipped["retention"]
    assert metrics["shipped_bytes_ratio"] == shipped["bytes_ratio"]
    assert metrics["shipped_latency_ratio"] == shipped["latency_ratio"]
    gain = metrics["contenders"]["student"]["ndcg10"] - metrics["baseline_ndcg10"]
    assert metrics["student_gain"] == pytest.approx(gain, abs=2e-6)


def test_the_choice_names_the_smallest_file_and_its_bytes(report: Path, artifacts: Path) -> None:
    choice = read(report / "choice.json")
    files = sorted((artifacts / "quantized").glob("pruned.*.onnx"), key=lambda path: path.stat().st_size)
    assert choice["file"] == files[0].name
    assert choice["sha256"] == file_digest(files[0])
    assert choice["max_length"] == 8


def test_the_page_is_well_formed_and_fetches_nothing(report: Path) -> None:
    page = Page((report / "index.html").read_text())
    assert page.open == []
    assert page.fetched == []
    assert "@import" not in (report / "index.html").read_text()
    assert not re.findall(r"url\((?!#)", (report / "index.html").read_text())


def test_the_page_shows_every_contender_and_what_ships(report: Path) -> None:
    text = (report / "index.html").read_text()
    for title in ("Teacher (2 members)", "One teacher member", "Student without teacher", "Popularity", "Item-kNN"):
        assert f"<td>{title}" in text
    assert f"{read(report / 'metrics.json')['shipped_ndcg10']:.4f}" in text
    assert text.count("<svg") == 4
    assert read(report / "lineage.json")["teacher"] in text


def test_the_data_of_the_plots_lie_beside_the_page(report: Path) -> None:
    tables = {path.stem: pl.read_csv(path) for path in (report / "plots").iterdir()}
    assert set(tables) == {"bytes", "latency", "curves", "strata"}
    assert tables["bytes"].height == 7
    assert "teacher" in tables["latency"]["contender"]
    targets = tables["strata"].group_by("contender").agg(pl.col("targets").sum())["targets"]
    assert set(targets) == {read(report / "metrics.json")["test_targets"]}


def test_quality_does_not_change_when_it_is_measured_again_and_a_refusal_leaves_its_report(
    report: Path, artifacts: Path, tmp_path: Path
) -> None:
    root = tmp_path / "checkout"
    (root / "artifacts").mkdir(parents=True)
    (root / "artifacts" / "tiny").symlink_to(artifacts)
    (root / "params.yaml").write_text(PARAMS.replace("min_retention: 0.001", "min_retention: 50"))
    before = read(report / "metrics.json")
    with pytest.raises(BudgetError, match=r"pruned\.fp32 .*gate\.min_retention"):
        work(Workspace("tiny", root))
    failed = root / ".recstill" / "failed" / "tiny" / "report"
    after = read(failed / "metrics.json")
    measured = {"p50_ms", "p95_ms", "p99_ms", "latency_ratio", "throughput", "peak_mib"}
    for name, figures in before["contenders"].items():
        assert {key: value for key, value in figures.items() if key not in measured} == {
            key: value for key, value in after["contenders"][name].items() if key not in measured
        }
    assert read(failed / "choice.json")["chosen"] is None
    assert "Nothing ships" in (failed / "index.html").read_text()
    assert not any(key.startswith("shipped") for key in after)
    assert report.is_dir(), "the report of the run before is DVC's to remove"


def test_the_metrics_hold_numbers_that_json_knows(report: Path, tmp_path: Path) -> None:
    write_json(tmp_path / "again.json", read(report / "metrics.json"))
    assert "NaN" not in (report / "metrics.json").read_text()
