"""A search on generated data: two recipes, one budget; what is found and written, and that nothing is done twice."""

from __future__ import annotations

import csv
import json

import yaml

from tests.end_to_end.conftest import Checkout

# A student of two epochs, of two sizes: the teacher and its labels are those that the checkout has.
TINY = """
    tune:
      only: true
      space:
        student.network.dim: {choices: [8, 16]}
"""
COMMAND = ("recstill", "tune", "synthetic", "--max-bytes", "20kB", "--min-retention", "0.05", "--trials", "2")


def made_tiny(checkout: Checkout) -> None:
    path = checkout.root / "params.yaml"
    text = path.read_text()
    start = text.index("\n  synthetic:")
    own = text[start : text.index("\n  binary:")]
    shorter = own.replace("max_epochs: 10, patience: 10", "max_epochs: 2, patience: 2").rstrip("\n")
    shorter = shorter.replace("max_epochs: 3, patience: 3", "max_epochs: 1, patience: 1").replace(
        "quantization: {", "quantization: {variants: [fp32, int8_table8], "
    )
    path.write_text(text.replace(own, f"{shorter}{TINY}"))


def test_a_search_finds_shows_and_writes_a_recipe_within_its_limits(another: Checkout) -> None:
    made_tiny(another)
    before = (another.root / "params.yaml").read_text()
    manifest = another.root / "artifacts/synthetic/soft_labels/manifest.json"
    labels = manifest.stat().st_mtime_ns

    printed = another.succeed(*COMMAND)
    assert (another.root / "params.yaml").read_text() == before and "nothing is changed" in printed
    assert manifest.stat().st_mtime_ns == labels, "trials read the one cache"
    assert printed.count("✓ trial") == 2 and "the recipe as it is" in printed and "left" in printed

    folder = another.root / ".recstill/tune/synthetic"
    page = (folder / "report/index.html").read_text()
    assert page.count("<svg") == 2 and "http://" not in page.replace("http://www.w3.org", "")
    with (folder / "report/points.csv").open() as stream:
        points = list(csv.DictReader(stream))
    assert len(points) == 4 and {point["form"] for point in points} == {"fp32", "int8_table8"}
    met = [point for point in points if point["meets_all_limits"] == "True"]
    assert met and all(float(point["bytes"]) <= 20_000 - 1024 and float(point["p95_ms"]) > 0 for point in met)
    best = max(met, key=lambda point: (float(point["quality"]), -float(point["bytes"])))
    results = [json.loads(path.read_text()) for path in folder.glob("trials/*/result.json")]
    assert len(results) == 2 and all(result["trained"] for result in results)

    applied = another.succeed(*COMMAND, "--apply")
    assert "▶ trial" not in applied, "nothing is tried twice"
    params = yaml.safe_load((another.root / "params.yaml").read_text())["scenarios"]["synthetic"]
    assert params["quantization"]["variants"] == [best["form"]] and params["budget"]["max_bytes"] == 20_000
    assert best["recipe"] == f"network.dim {params['student']['network']['dim']}"
    assert "seconds long; drives the end-to-end test" in (another.root / "params.yaml").read_text()
