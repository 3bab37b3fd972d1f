"""The stage ingest writes checked events, and on bad input nothing at all."""

import json
from pathlib import Path

import polars as pl
import pytest
import yaml

from components.errors import DataError, SettingsError
from components.stages.ingest import work
from components.stages.workspace import Workspace

ROWS = "user,item,timestamp\na,1,5\nb,2,6\n,3,7\na,2,8\n"


def workspace(root: Path, **source: object) -> Workspace:
    section = {"kind": "table", "path": "e.csv", **source}
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"mine": {"source": section}}}))
    return Workspace("mine", root)


def test_events_items_rejected_rows_and_the_record_are_written(tmp_path: Path, capsys) -> None:
    (tmp_path / "e.csv").write_text(ROWS)
    work(workspace(tmp_path, max_rejected_share=0.25))
    folder = tmp_path / "artifacts" / "mine"
    assert sorted(path.name for path in folder.iterdir()) == [
        "events.parquet",
        "items.parquet",
        "rejected.parquet",
        "source.json",
    ]
    assert len(pl.read_parquet(folder / "events.parquet")) == 3
    assert pl.read_parquet(folder / "rejected.parquet").rows() == [("e.csv", 3, None, "3", "7", "null user")]
    assert json.loads((folder / "source.json").read_text())["rejected"] == {"null user": 1}
    shown = capsys.readouterr().out
    assert "read 4 rows from e.csv; rejected: 1 x null user" in shown
    assert "3 events of 2 users and 2 items, 1970-01-01T00:00:05Z to 1970-01-01T00:00:08Z" in shown


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(ROWS)
    space = workspace(tmp_path, max_rejected_share=0.25)
    work(space)
    before = {path.name: path.read_bytes() for path in space.artifacts.iterdir()}
    work(space)
    assert {path.name: path.read_bytes() for path in space.artifacts.iterdir()} == before


def test_too_many_bad_rows_fail_and_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(ROWS)
    space = workspace(tmp_path)
    with pytest.raises(DataError, match="1 of 4 rows"):
        work(space)
    assert not space.artifacts.exists()


def test_a_key_that_is_unknown_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'scenarios\.mine\.source\.colums'.*'columns'"):
        work(workspace(tmp_path, colums={}))


def test_dates_and_spans_are_read_from_yaml(tmp_path: Path) -> None:
    (tmp_path / "e.csv").write_text(ROWS.replace(",3,7", "c,3,7"))
    (tmp_path / "params.yaml").write_text(
        "scenarios: {mine: {source: {kind: table, path: e.csv, as_of: 1970-01-01 00:00:07, window: PT2S}}}"
    )
    work(Workspace("mine", tmp_path))
    events = pl.read_parquet(tmp_path / "artifacts" / "mine" / "events.parquet")
    assert (events["timestamp"] // 10**6).to_list() == [6, 7]


def test_the_seeded_generator_is_a_source(tmp_path: Path) -> None:
    source = {"kind": "synthetic", "path": "components/data/synthetic.py", "users": 20, "items": 24}
    work(workspace(tmp_path, **source, events_per_user=8))
    record = json.loads((tmp_path / "artifacts" / "mine" / "source.json").read_text())
    assert record["users"] == 20
    assert record["rejected"] == {}
