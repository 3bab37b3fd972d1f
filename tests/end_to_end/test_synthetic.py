"""The whole graph on generated data: what a user sees, what is rerun, and that DVC alone does the same."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import yaml

from tests.end_to_end.conftest import Checkout, new_checkout, outcomes
from tests.stage_modules import stage_names_of_a_scenario

# Their bytes hold measured times, and so do those of what is made from them.
MEASURED = ("metrics/", "report", "package")


def locked(checkout: Checkout) -> dict[str, Any]:
    return yaml.safe_load((checkout.root / "dvc.lock").read_text())["stages"]


def test_every_stage_runs_once_and_the_results_are_shown(finished: tuple[Checkout, str]) -> None:
    checkout, printed = finished
    assert outcomes(printed) == dict.fromkeys(stage_names_of_a_scenario(), "ran")
    assert "teacher" in printed and "NDCG@10" in printed and "report/index.html" in printed
    report = checkout.root / "artifacts/synthetic/report"
    page = (report / "index.html").read_text()
    assert page.count("<svg") >= 4 and "http://" not in page.replace("http://www.w3.org", "")
    metrics = json.loads((report / "metrics.json").read_text())
    contenders = metrics["contenders"]
    assert contenders["teacher"]["ndcg10"] > 1.3 * contenders["popularity"]["ndcg10"]


def test_stages_write_what_dvc_yaml_declares_and_nothing_else(finished: tuple[Checkout, str]) -> None:
    checkout, _ = finished
    declared = [Path(out["path"]) for stage in locked(checkout).values() for out in stage["outs"]]
    folder = checkout.root / "artifacts/synthetic"
    written = [path.relative_to(checkout.root) for path in folder.rglob("*") if path.is_file()]
    assert [path for path in written if not any(path.is_relative_to(out) for out in declared)] == []
    assert checkout.succeed("git", "status", "--porcelain").splitlines() == ["?? dvc.lock"]
    assert "shipped_ndcg10" in checkout.succeed("dvc", "metrics", "show", "artifacts/synthetic/report/metrics.json")
    assert "latency.csv" in checkout.succeed(
        "dvc", "plots", "show", "--show-vega", "artifacts/synthetic/report/plots/latency.csv"
    )


def test_a_package_recommends_without_its_checkout(finished: tuple[Checkout, str], tmp_path: Path) -> None:
    checkout, _ = finished
    package = tmp_path / "copied"
    shutil.copytree(checkout.root / "artifacts/synthetic/package", package)
    printed = Checkout(tmp_path, checkout.environment).succeed(
        "recstill", "predict", str(package), "--history", "3,7,11", "-k", "5", "--json"
    )
    items = [row["item"] for row in json.loads(printed)["recommendations"]]
    assert len(set(items)) == 5 and not set(items) & {"3", "7", "11"}


def test_a_package_with_a_changed_byte_is_refused(finished: tuple[Checkout, str], tmp_path: Path) -> None:
    checkout, _ = finished
    package = tmp_path / "damaged"
    shutil.copytree(checkout.root / "artifacts/synthetic/package", package)
    model = package / "model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    assert "model.onnx" in checkout.refuse("recstill", "predict", str(package), "--history", "3")


def test_at_once_again_everything_is_up_to_date_and_prefect_is_not_started(finished: tuple[Checkout, str]) -> None:
    checkout, _ = finished
    started = time.monotonic()
    printed = checkout.succeed("recstill", "run", "synthetic", PREFECT_API_URL="http://127.0.0.1:9/api")
    assert time.monotonic() - started < 10
    assert "every stage is up to date" in printed and "NDCG@10" in printed


def test_plain_dvc_finds_nothing_to_do_and_leaves_the_lock_alone(finished: tuple[Checkout, str]) -> None:
    checkout, _ = finished
    lock = (checkout.root / "dvc.lock").read_bytes()
    printed = checkout.succeed("dvc", "repro", "package@synthetic")
    assert "Running stage" not in printed
    assert (checkout.root / "dvc.lock").read_bytes() == lock


def test_plain_dvc_in_another_checkout_gives_the_same_lock(finished: tuple[Checkout, str], tmp_path: Path) -> None:
    """Everything that does not hold a measured time is the same to the byte, though DVC runs it all by itself."""
    checkout, _ = finished
    other = new_checkout(tmp_path)
    other.succeed("dvc", "repro", "package@synthetic")
    mine, theirs = locked(checkout), locked(other)
    assert mine.keys() == theirs.keys()
    for address, stage in mine.items():
        assert stage["cmd"] == theirs[address]["cmd"]
        assert stage["params"] == theirs[address]["params"]
        for kind in ("deps", "outs"):
            assert _paths(stage[kind]) == _paths(theirs[address][kind])
            assert _fixed(stage[kind]) == _fixed(theirs[address][kind]), address


def _paths(entries: list[dict[str, Any]]) -> list[str]:
    return [entry["path"] for entry in entries]


def _fixed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [entry for entry in entries if not any(word in entry["path"] for word in MEASURED)]
