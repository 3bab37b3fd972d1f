"""A new object below the source's prefix, on a real S3 server: the stages notice it, and only then."""

import json
from pathlib import Path

import polars as pl
import yaml

from components.data.synthetic import draw_events
from components.settings.source import SyntheticSource
from tests.end_to_end.conftest import Checkout, new_checkout
from tests.integration.conftest import S3Server

_MADE = "artifacts/synthetic/dataset/dataset.json"


def put(server: S3Server, bucket: str, name: str, events: pl.DataFrame, folder: Path) -> None:
    events.write_parquet(folder / name)
    server.client().put_object(Bucket=bucket, Key=f"log/{name}", Body=(folder / name).read_bytes())


def pending(checkout: Checkout) -> bool:
    state = checkout.succeed("recstill", "status", "synthetic")
    (line,) = [line for line in state.splitlines() if line.startswith("ingest@synthetic")]
    return "to run" in line


def test_a_new_object_below_the_prefix_is_noticed(s3_environment: S3Server, tmp_path: Path) -> None:
    bucket = s3_environment.new_bucket()
    events = draw_events(SyntheticSource(kind="synthetic", path="-", users=60, items=30, events_per_user=12))
    put(s3_environment, bucket, "a.parquet", events[: len(events) // 2], tmp_path)
    checkout = new_checkout(tmp_path)
    path = checkout.root / "params.yaml"
    params = yaml.safe_load(path.read_text())
    params["scenarios"]["synthetic"]["source"] = {"kind": "table", "path": f"s3://{bucket}/log"}
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    assert pending(checkout)
    checkout.succeed("dvc", "repro", "prepare@synthetic")
    before = json.loads((checkout.root / _MADE).read_text())
    assert not pending(checkout), "nothing has come"
    put(s3_environment, bucket, "b.parquet", events[len(events) // 2 :], tmp_path)
    assert pending(checkout)
    checkout.succeed("dvc", "repro", "prepare@synthetic")
    after = json.loads((checkout.root / _MADE).read_text())
    assert after["events"] > before["events"] and after["digest"] != before["digest"]
    assert not pending(checkout)
