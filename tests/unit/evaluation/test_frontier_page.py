"""The page of the frontiers says what is stored, and nothing else."""

import pytest

from tests.benchmarks.frontier.__main__ import FRONTIERS
from tests.benchmarks.frontier.page import PAGE, files, page
from tests.benchmarks.frontier.points import ROOT, Frontier
from tests.benchmarks.frontier.stored import CURVES, FOLDER, Row, Stored, read_stored

ROW = Row(
    curve="distilled",
    point="d8",
    contender="student.fp32",
    quality=(0.25, 0.2, 0.3),
    retention=(0.9, 0.8, 1.0),
    seeds={"0": 0.24, "1": 0.26},
    bytes=12_345,
    row_bytes=32.0,
    latency_ratio=0.125,
    command="recstill run somewhere",
    commit="0123456789ab",
)


def test_the_page_in_docs_is_made_of_what_is_stored() -> None:
    stored = read_stored()

    assert stored and PAGE.read_text(encoding="utf-8") == page(stored)
    for one in stored:
        assert {f"{one.data}-bytes.svg", f"{one.data}-latency.svg"} <= {path.name for path in FOLDER.iterdir()}


def test_a_row_has_quality_interval_seeds_costs_and_its_command() -> None:
    told = page([Stored("somewhere", "Recall@50", 77, [ROW])])

    assert "Recall@50 over 77 test users, seeds 0, 1." in told
    assert "0.2500 [0.2000, 0.3000] | .2400, .2600 | 90.0% [80.0%, 100.0%] | 12,345 | 32 | 0.125 |" in told
    assert "recstill run somewhere" in told and "0123456789ab" in told


def test_plots_mark_curves_and_what_was_published() -> None:
    teacher = ROW._replace(curve="teacher", contender="teacher", bytes=99_999)
    written = {path.name: content for path, content in files([Stored("citeulike", "Recall@50", 77, [teacher, ROW])])}

    assert {"citeulike-bytes.svg", "citeulike-latency.svg", "frontier.md"} == {*written}
    for title in (CURVES["teacher"], CURVES["distilled"], "published: HTD"):
        assert title in written["citeulike-bytes.svg"]
    assert CURVES["quantized"] not in written["citeulike-bytes.svg"]
    assert "published" not in written["citeulike-latency.svg"]
    assert "currentColor" not in written["citeulike-bytes.svg"]


@pytest.mark.parametrize("frontier", FRONTIERS.values(), ids=FRONTIERS)
def test_every_curve_of_a_frontier_has_points_and_the_first_judges_the_teacher(frontier: Frontier) -> None:
    curves = {curve for point in frontier.points for curve in point.contenders.values()}

    assert curves == {*CURVES}
    assert "teacher" in frontier.points[0].contenders
    assert len({point.name for point in frontier.points}) == len(frontier.points)
    assert (ROOT / "params.yaml").read_text(encoding="utf-8").count(f"\n  {frontier.scenario}:") == 1
