"""The stage prepare makes the data set of what ingest wrote."""

from pathlib import Path

import pytest
import yaml

from components.data.dataset import read_dataset
from components.errors import DataError
from components.stages import ingest, prepare
from components.stages.workspace import Workspace


def workspace(root: Path, **prepare_section: object) -> Workspace:
    source = {"kind": "synthetic", "path": "components/data/synthetic.py", "users": 30, "items": 24}
    sections = {"task": "next_item", "source": {**source, "events_per_user": 8}, "prepare": prepare_section}
    (root / "params.yaml").write_text(yaml.safe_dump({"scenarios": {"mine": sections}}))
    return Workspace("mine", root)


@pytest.mark.parametrize("split", ["leave_one_out", "temporal"])
def test_ingest_then_prepare_make_a_data_set_that_reads_back(tmp_path: Path, split: str, capsys) -> None:
    space = workspace(tmp_path, split=split)
    ingest.work(space)
    prepare.work(space)
    dataset = read_dataset(space.artifacts / "dataset")
    assert dataset.record["settings"]["split"] == split
    assert f"split {split}" in capsys.readouterr().out
    assert dataset.points > 0
    assert all(len(dataset.rows(name)) for name in ("train", "validation", "test"))


def test_the_same_events_give_the_same_bytes(tmp_path: Path) -> None:
    space = workspace(tmp_path)
    ingest.work(space)
    written = []
    for _ in range(2):
        prepare.work(space)
        written.append({path.name: path.read_bytes() for path in (space.artifacts / "dataset").iterdir()})
    assert written[0] == written[1]


def test_before_ingest_it_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"source\.json is missing"):
        prepare.work(workspace(tmp_path))


def test_floors_that_leave_nothing_keep_the_earlier_data_set(tmp_path: Path) -> None:
    ingest.work(workspace(tmp_path))
    prepare.work(workspace(tmp_path, min_user_events=3))
    with pytest.raises(DataError, match="min_user_events"):
        prepare.work(workspace(tmp_path, min_user_events=1000))
    assert read_dataset(tmp_path / "artifacts" / "mine" / "dataset").users == 30
