import hashlib
import shutil
from pathlib import Path

import pytest

from components.data.dataset import PreparedDataset
from components.networks.ensemble import teacher_digest
from components.provenance.outputs import file_digests, told_by
from components.provenance.stage_statement import FileDigests
from components.storage.atomic import read_json, write_json
from components.storage.checkpoints import checkpoint_digest
from components.storage.digests import file_digest
from tests.unit.serving.conftest import artifacts as shared  # noqa: F401  # a fixture


@pytest.fixture
def root(shared: Path, tmp_path: Path) -> Path:  # noqa: F811
    shutil.copytree(shared, tmp_path / "artifacts" / "tiny")
    return tmp_path


def files_of(root: Path, *outputs: str) -> dict[str, FileDigests]:
    folder = root / "artifacts" / "tiny"
    paths = [path for name in outputs for path in [folder / name, *(folder / name).rglob("*")] if path.is_file()]
    return {path.relative_to(root).as_posix(): file_digests(path) for path in paths}


def test_a_file_is_read_once_for_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 9000)
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    assert file_digests(path) == FileDigests(file_digest(path), md5, 256 * 9000)


@pytest.mark.parametrize("name", ["student", "pruned", "baseline"])
def test_a_network_is_named_as_the_lineage_names_it(root: Path, name: str) -> None:
    expected = checkpoint_digest(root / "artifacts/tiny" / name)
    assert told_by(root, files_of(root, name)).digests == {name: expected}


def test_a_teacher_of_two_members_is_one_teacher(root: Path) -> None:
    told = told_by(root, files_of(root, "teacher"))
    assert told.digests == {"teacher": teacher_digest(root / "artifacts/tiny/teacher")}


def test_a_teacher_that_lies_about_itself_is_not_believed(root: Path) -> None:
    write_json(root / "artifacts/tiny/teacher/teacher.json", {"members": 2, "digest": "0" * 64})
    told = told_by(root, files_of(root, "teacher"))
    assert told.digests == {"teacher": teacher_digest(root / "artifacts/tiny/teacher")}


def test_data_and_figures_are_told(root: Path, prepared: PreparedDataset) -> None:
    told = told_by(root, files_of(root, "dataset"))
    assert told.digests == {"dataset": read_json(root / "artifacts/tiny/dataset/dataset.json")["digest"]}
    assert told.metrics["items"] == prepared.items
    assert "cost" in told_by(root, files_of(root, "metrics")).metrics
    assert told_by(root, files_of(root, "quantized")).digests == {
        "variants": file_digest(root / "artifacts/tiny/quantized/variants.json")
    }


def test_soft_labels_name_their_parts_in_the_store(root: Path) -> None:
    part = {"name": "part-00000-abc.safetensors", "sha256": "a" * 64, "rows": 5}
    write_json(root / "artifacts/tiny/soft_labels/manifest.json", {"id": "c" * 64, "parts": [part]})
    told = told_by(root, files_of(root, "soft_labels"))
    assert told.digests == {"soft_labels": "c" * 64}
    assert told.byproducts == {f"soft-labels/{'c' * 64}/part-00000-abc.safetensors": "a" * 64}


@pytest.mark.parametrize("name", ["source.json", "dataset.json", "teacher.json", "package.json", "metrics/x.json"])
@pytest.mark.parametrize("content", [b"", b"no json", b"[1]", b"{}", b"\xff"])
def test_what_cannot_be_read_tells_nothing_and_stops_nothing(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "artifacts/tiny" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    told = told_by(tmp_path, {f"artifacts/tiny/{name}": file_digests(path)})
    assert set(told.digests) <= {"package"} and not told.byproducts
