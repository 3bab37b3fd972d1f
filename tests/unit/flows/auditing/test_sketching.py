"""A sketch is kept where a run ends, once, and made afterwards for data that have none."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl
import pytest

from components.data.subject_key import subject_key_made
from components.provenance.subjects import read_sketch
from flows.auditing.sketching import AFTERWARDS, DURING, people_outputs, sketch_afterwards, sketch_here, sketch_run
from flows.locked_outputs import outputs
from flows.repository import keys_of, store_of
from tests.unit.flows import small_checkout as small
from tests.unit.flows.small_checkout import SCENARIO, small_checkout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    pl.DataFrame({"user": ["ann", "bob"], "item": ["1", "2"]}).write_parquet(folder / "events.parquet")
    pl.DataFrame({"user": ["cy"]}).write_parquet(folder / "rejected.parquet")
    pl.DataFrame({"user": [0], "id": ["ann"]}).write_parquet(folder / "users.parquet")
    with pytest.MonkeyPatch.context() as patch:
        make = (
            f"mkdir -p artifacts/tiny/dataset && cp {folder}/users.parquet artifacts/tiny/dataset && "
            f"cp {folder}/events.parquet {folder}/rejected.parquet artifacts/tiny"
        )
        outs = [f"artifacts/tiny/{name}" for name in ("events.parquet", "rejected.parquet", "dataset")]
        patch.setattr(small, "_STAGE", {**small._STAGE, "cmd": make, "outs": outs})
        return small_checkout(tmp_path_factory.mktemp("made"))


@pytest.fixture
def checkout(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RECSTILL_STORE", "RECSTILL_SUBJECT_KEY"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def test_outputs_that_hold_people_are_known_by_their_names() -> None:
    recorded = [("artifacts/a/events.parquet", "1"), ("artifacts/a/dataset", "2.dir"), ("artifacts/a/teacher", "3.dir")]
    assert people_outputs([*recorded, ("artifacts/a/report/dataset", "4")]) == dict(recorded[:2])


def test_the_data_of_a_run_are_sketched_once(checkout: Path) -> None:
    sketch = sketch_here(checkout, SCENARIO, DURING)
    assert sketch is not None
    assert (sketch.count, sketch.attached) == (3, "during the run")
    key = subject_key_made(keys_of(checkout))
    assert [sketch.holds(person, key) for person in ("ann", "bob", "cy", "dan")] == [True, True, True, False]
    assert sketch_here(checkout, SCENARIO, DURING) is None
    assert read_sketch(store_of(checkout), people_outputs(outputs(checkout, SCENARIO))) == sketch


def test_data_without_a_sketch_get_one_from_the_cache_and_none_when_the_bytes_are_gone(checkout: Path) -> None:
    store, key = store_of(checkout), subject_key_made(keys_of(checkout))
    people = people_outputs(outputs(checkout, SCENARIO))
    shutil.rmtree(checkout / "artifacts")
    sketch = sketch_afterwards(checkout, store, SCENARIO, people, key)
    assert sketch is not None
    assert (sketch.attached, sketch.holds("cy", key)) == (AFTERWARDS, True)
    shutil.rmtree(checkout / ".dvc" / "cache")
    shutil.rmtree(checkout / ".recstill" / "store")
    assert sketch_afterwards(checkout, store, SCENARIO, people, key) is None


def test_a_run_keeps_one_and_says_so_and_never_fails_for_it(checkout: Path) -> None:
    said: list[str] = []
    sketch_run(checkout, SCENARIO, ["make@tiny"], said.append)
    found = read_sketch(store_of(checkout), people_outputs(outputs(checkout, SCENARIO)))
    assert found is not None
    assert found.attached == DURING
    assert said == ["tiny: 3 people are in the data; a keyed sketch of them is kept"]
    sketch_run(checkout, SCENARIO, [], said.append)
    assert len(said) == 1
    shutil.rmtree(checkout / ".recstill" / "store")
    (checkout / "artifacts" / "tiny" / "events.parquet").chmod(0o644)
    (checkout / "artifacts" / "tiny" / "events.parquet").unlink()
    (checkout / "artifacts" / "tiny" / "events.parquet").write_bytes(b"PAR1 no table")
    sketch_run(checkout, SCENARIO, [], said.append)
    assert "no sketch" in said[1]
