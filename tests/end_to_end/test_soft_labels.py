"""The commands on soft labels in a checkout whose scenario has run."""

from __future__ import annotations

import json
from pathlib import Path

from tests.end_to_end.conftest import Checkout


def test_build_fills_a_store_that_lacks_the_cache_although_dvc_calls_the_stage_up_to_date(
    another: Checkout, tmp_path: Path
) -> None:
    manifest = another.root / "artifacts/synthetic/soft_labels/manifest.json"
    before = manifest.read_bytes()
    assert "is up to date" in another.succeed("recstill", "soft-labels", "build", "synthetic")
    elsewhere = {"RECSTILL_STORE": f"file://{tmp_path}/elsewhere"}
    assert json.loads(another.succeed("recstill", "soft-labels", "list", "--json", **elsewhere))["caches"] == []
    # Two Dask workers, in processes of their own, and then the stage.
    assert "complete" in another.succeed("recstill", "soft-labels", "build", "synthetic", "--workers", "2", **elsewhere)
    another.succeed("recstill", "soft-labels", "verify", "synthetic", **elsewhere)
    assert manifest.read_bytes() == before
