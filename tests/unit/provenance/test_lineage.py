import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from components.networks.building import new_network, write_network
from components.provenance.lineage import UNKNOWN, commit_of, network_lineage
from components.settings.network import CausalTransformerSettings
from components.storage.atomic import write_json


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "components").mkdir()
    (tmp_path / "components" / "code.py").write_text("x = 1\n")
    (tmp_path / "notes.md").write_text("notes\n")
    (tmp_path / "dvc.lock").write_text("a: 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    return tmp_path


def test_the_commit_is_that_of_the_checkout(checkout: Path) -> None:
    assert commit_of(checkout) == (git(checkout, "rev-parse", "HEAD"), False)


@pytest.mark.parametrize("name", ["components/code.py", "components/new.py", "params.yaml"])
def test_changed_or_added_code_and_parameters_make_it_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("x = 2\n")
    assert commit_of(checkout).dirty is True


@pytest.mark.parametrize("name", ["dvc.lock", "notes.md", "artifacts.bin"])
def test_what_a_run_writes_does_not_make_it_dirty(checkout: Path, name: str) -> None:
    (checkout / name).write_text("other\n")
    assert commit_of(checkout).dirty is False


def test_outside_a_checkout_the_commit_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path) == (UNKNOWN, None)


def test_without_git_the_commit_is_unknown(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert commit_of(checkout) == (UNKNOWN, None)


def test_every_network_has_its_own_digest_which_follows_its_weights(tmp_path: Path) -> None:
    shape = CausalTransformerSettings(dim=4, blocks=1, ffn_dim=4, heads=1, max_length=4)
    for seed, name in enumerate(("teacher/member-0", "baseline", "student", "pruned")):
        torch.manual_seed(seed)
        (tmp_path / name).mkdir(parents=True)
        write_network(tmp_path / name, new_network(shape, 6))
    write_json(tmp_path / "teacher" / "teacher.json", {"members": 1})
    write_json(tmp_path / "quantized" / "variants.json", {"variants": []})
    record = {"digest": "d" * 64, "source_digest": "s" * 64}
    before = network_lineage(tmp_path, record)
    assert set(before) == {"dataset", "source", "teacher", "baseline", "student", "pruned", "variants"}
    assert len(set(before.values())) == len(before)
    shutil.rmtree(tmp_path / "student")
    shutil.copytree(tmp_path / "pruned", tmp_path / "student")
    after = network_lineage(tmp_path, record)
    assert after["student"] == before["pruned"]
    assert {name for name in after if after[name] != before[name]} == {"student"}
