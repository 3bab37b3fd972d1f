from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from components.soft_labels.manifest import Manifest, written
from components.storage.folder_store import FolderStore
from flows.cli import app
from tests.unit.soft_labels.table_teacher import SETTINGS, TableTeacher, cache_in

IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    (root / ".dvc").mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(root)
    monkeypatch.setenv("RECSTILL_STORE", f"file://{tmp_path}/store")
    git(root, "init", "-q", "-b", "main")
    return root


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def manifest(store: FolderStore) -> Manifest:
    return cache_in(store, TableTeacher())


def git(root: Path, *command: str) -> None:
    subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True, capture_output=True)


def call(*words: str, answer: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=answer)


def printed(*words: str, answer: str | None = None) -> str:
    done = call(*words, answer=answer)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(*words: str, answer: str | None = None) -> str:
    """The error of a command that must fail, in one message."""
    done = call(*words, answer=answer)
    assert done.exit_code == 1
    assert done.exception is not None and hasattr(done.exception, "remedy"), (done.output, done.exception)
    return str(done.exception)


def used_here(root: Path, manifest: Manifest, scenario: str = "shop") -> Path:
    path = root / "artifacts" / scenario / "soft_labels" / "manifest.json"
    path.parent.mkdir(parents=True)
    path.write_bytes(written(manifest))
    return path


def registered(root: Path, manifest: Manifest, tag: str | None = "shop@v1.0.0", content: bytes | None = None) -> None:
    md5 = hashlib.md5(content or written(manifest)).hexdigest()
    out = {"path": "artifacts/shop/soft_labels/manifest.json", "md5": md5}
    (root / "dvc.lock").write_text(yaml.safe_dump({"stages": {"soft_labels@shop": {"outs": [out]}}}))
    git(root, "add", "dvc.lock")
    git(root, "commit", "-q", "-m", "a run")
    if tag:
        git(root, "tag", tag)
    (root / "dvc.lock").unlink()


def aged(store: FolderStore, pattern: str, days: float) -> None:
    for path in Path(store.address.removeprefix("file://")).glob(pattern):
        os.utime(path, (time.time() - days * 86_400,) * 2)


def test_an_empty_store_has_no_caches_and_no_garbage(checkout: Path) -> None:
    assert "0 caches" in printed("soft-labels", "list")
    assert json.loads(printed("soft-labels", "list", "--json"))["caches"] == []
    assert "no cache" in printed("soft-labels", "verify", "--all")
    assert "0 unreachable objects" in printed("store", "gc")


def test_list_tells_what_a_cache_is_of_and_who_uses_it(checkout: Path, manifest: Manifest) -> None:
    registered(checkout, manifest)
    used_here(checkout, manifest)
    text = printed("soft-labels", "list")
    for word in (manifest.id[:12], "complete", "250", "top_k_tail k=8", "a" * 12, "b" * 12, "version shop@v1.0.0"):
        assert word in text
    (record,) = json.loads(printed("soft-labels", "list", "--json"))["caches"]
    assert record["id"] == manifest.id and record["rows"] == 250 and record["bytes"] == manifest.bytes
    assert record["bytes_per_row"] == round(manifest.bytes / 250, 2)
    users = [(one["kind"], one["scenario"]) for one in record["used_by"]]
    assert users == [("version", "shop"), ("workspace", "shop"), ("branch", "shop")]


def test_list_marks_a_damaged_cache_and_shows_the_others(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    other = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 4}))
    (Path(store.address.removeprefix("file://")) / other.key("manifest.json")).write_bytes(b"\x00")
    states = {one["id"]: one["state"] for one in json.loads(printed("soft-labels", "list", "--json"))["caches"]}
    assert states == {manifest.id: "complete", other.id: "damaged"}
    assert f"{other.id[:12]} is damaged: " in printed("soft-labels", "list")


@pytest.mark.parametrize("by", ["id", "scenario"])
def test_show_tells_all_of_a_manifest(checkout: Path, manifest: Manifest, by: str) -> None:
    used_here(checkout, manifest)
    name = "shop" if by == "scenario" else manifest.id[:6]
    text = printed("soft-labels", "show", name)
    for word in (manifest.id, manifest.teacher, manifest.dataset, f"/store/soft-labels/{manifest.id}/", "workspace"):
        assert word in text
    assert all(part.name in text for part in manifest.parts)
    record = json.loads(printed("soft-labels", "show", name, "--json"))
    assert [part["sha256"] for part in record["parts"]] == [part.sha256 for part in manifest.parts]


def test_an_unknown_cache_a_short_id_and_a_store_that_is_not_there_are_clear_errors(
    checkout: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in ("show", "verify", "remove"):
        assert "no cache in file://" in refused("soft-labels", command, "nowhere")
        assert "too short" in refused("soft-labels", command, manifest.id[:5])
    assert "one cache, or --all" in refused("soft-labels", "verify")
    assert "unknown scenario 'nowhere'" in refused("soft-labels", "build", "nowhere")
    path = used_here(checkout, manifest)
    shutil.rmtree(checkout.parent / "store")
    assert "is not in file://" in refused("soft-labels", "show", "shop")
    path.write_text("{")
    assert "artifacts/shop/soft_labels/manifest.json is not a whole manifest" in refused("soft-labels", "show", "shop")
    monkeypatch.setenv("RECSTILL_STORE", "ftp://host")
    for words in (("soft-labels", "list"), ("store", "gc")):
        assert "unknown kind of store" in refused(*words)


def test_verify_ends_with_1_when_something_is_wrong_and_says_how_to_heal_it(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    used_here(checkout, manifest)
    assert "every byte is as it was written" in printed("soft-labels", "verify", "shop")
    path = Path(store.address.removeprefix("file://")) / manifest.key(manifest.parts[1].name)
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    for words in (("shop",), ("--all",), (manifest.id[:8],)):
        done = call("soft-labels", "verify", *words)
        assert done.exit_code == 1
        assert manifest.parts[1].name in done.output and "damaged" in done.output
        assert "recstill soft-labels build shop --force" in done.output
    record = json.loads(call("soft-labels", "verify", "--all", "--json").output)
    assert record["sound"] is False
    assert [one["key"] for one in record["caches"][0]["findings"]] == [manifest.key(manifest.parts[1].name)]
    store.delete(manifest.key("manifest.json"))
    assert "is incomplete" in refused("soft-labels", "verify", manifest.id)


def test_remove_asks_first(checkout: Path, store: FolderStore, manifest: Manifest) -> None:
    assert call("soft-labels", "remove", manifest.id[:8], answer="n\n").exit_code == 1
    assert "nobody is there" in refused("soft-labels", "remove", manifest.id[:8], answer="")
    assert len(list(store.list(""))) == 7
    assert "deleted 7 objects" in printed("soft-labels", "remove", manifest.id[:8], answer="y\n")
    assert list(store.list("")) == []


def test_remove_refuses_what_a_workspace_or_a_branch_uses_unless_it_is_forced(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    used_here(checkout, manifest)
    assert "in use by workspace" in refused("soft-labels", "remove", "shop", "--yes")
    shutil.rmtree(checkout / "artifacts")
    registered(checkout, manifest, tag=None)
    assert "in use by branch main (scenario shop)" in refused("soft-labels", "remove", manifest.id, "--yes")
    assert "still in use by branch main" in printed("soft-labels", "remove", manifest.id, "--yes", "--force")
    assert list(store.list("")) == []


def test_what_a_registered_version_needs_is_never_removed_or_collected(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    registered(checkout, manifest)
    store.put(manifest.key("stray"), b"x", hashlib.sha256(b"x").hexdigest())
    aged(store, "soft-labels/*/*", 30)
    before = list(store.list(""))
    assert "needed by version shop@v1.0.0" in refused("soft-labels", "remove", manifest.id, "--yes", "--force")
    assert "0 unreachable" in printed("store", "gc", "--unreferenced", "--force", "--yes")
    assert list(store.list("")) == before
    git(checkout, "tag", "-d", "shop@v1.0.0")
    assert manifest.key("stray") in printed("store", "gc", "--yes")
    assert store.size(manifest.key("stray")) is None


def test_while_it_is_not_known_what_a_version_needs_nothing_is_deleted(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    registered(checkout, manifest, content=b"a manifest that is nowhere any more")
    store.delete(manifest.key("manifest.json"))
    aged(store, "soft-labels/*/*", 30)
    before = list(store.list(""))
    for words in (("soft-labels", "remove", manifest.id, "--force"), ("store", "gc", "--unreferenced", "--force")):
        error = refused(*words, "--yes")
        assert "version shop@v1.0.0" in error
        assert "dvc fetch --all-tags artifacts/shop/soft_labels/manifest.json" in error
    assert "not known which cache version shop@v1.0.0" in printed("store", "gc", "--yes")
    assert list(store.list("")) == before


def test_while_it_is_not_known_what_a_branch_uses_whole_caches_go_only_by_force(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    registered(checkout, manifest, tag=None, content=b"a manifest that is nowhere any more")
    aged(store, "soft-labels/*/*", 30)
    for words in (("soft-labels", "remove", manifest.id), ("store", "gc", "--unreferenced")):
        assert "branch main (scenario shop)" in refused(*words, "--yes")
    assert "0 unreachable" in printed("store", "gc", "--yes"), "what else there is needs no knowing"
    assert "deleted 7 objects" in printed("store", "gc", "--unreferenced", "--force", "--yes")


def test_gc_names_before_it_deletes_and_a_dry_run_only_names(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    other = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 4}))
    store.delete(other.key("manifest.json"))
    unfinished = {found.key for found in store.list(f"soft-labels/{other.id}/")}
    assert "0 unreachable" in printed("store", "gc", "--yes"), "a writer may be at work"
    aged(store, "soft-labels/*/*", 2)
    before = list(store.list(""))
    text = printed("store", "gc", "--dry-run")
    assert all(key in text for key in unfinished) and manifest.id not in text
    record = json.loads(printed("store", "gc", "--dry-run", "--json"))
    assert {one["key"] for one in record["unreachable"]} == unfinished and record["deleted"] == 0
    assert all(one["age_seconds"] > 170_000 and one["reason"] for one in record["unreachable"])
    assert call("store", "gc", answer="no\n").exit_code == 1
    assert "nobody is there" in refused("store", "gc", answer="")
    assert "--json asks nothing" in refused("store", "gc", "--json")
    assert "0 unreachable" in printed("store", "gc", "--dry-run", "--older-than", "3d")
    assert list(store.list("")) == before
    assert "deleted 6 objects" in printed("store", "gc", "--older-than", "47h", answer="yes\n")
    assert {found.key for found in before} - {found.key for found in store.list("")} == unfinished


def test_whole_caches_go_only_when_asked_for_and_nothing_here_refers_to_them(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    other = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 4}))
    used_here(checkout, manifest)
    aged(store, "soft-labels/*/*", 2)
    assert "0 unreachable" in printed("store", "gc", "--yes")
    assert "others may share this store" in printed("store", "gc", "--unreferenced", "--yes")
    assert {found.key.split("/")[1] for found in store.list("")} == {manifest.id}
    assert other.id != manifest.id


def test_parts_that_a_manifest_in_use_may_name_are_kept_although_the_store_lost_its_own(
    checkout: Path, store: FolderStore, manifest: Manifest
) -> None:
    used_here(checkout, manifest)
    store.delete(manifest.key("manifest.json"))
    aged(store, "soft-labels/*/*", 2)
    assert "0 unreachable" in printed("store", "gc", "--yes", "--unreferenced")


@pytest.mark.parametrize("age", ["", "soon", "24", "-1h", "h", "1y"])
def test_an_age_that_is_none_is_refused(checkout: Path, age: str) -> None:
    assert "is no age" in refused("store", "gc", "--older-than", age)


def test_the_commands_work_outside_of_git(tmp_path: Path, checkout: Path, manifest: Manifest) -> None:
    shutil.rmtree(checkout / ".git")
    used_here(checkout, manifest)
    assert "workspace shop" in printed("soft-labels", "list")
    assert "in use by workspace" in refused("soft-labels", "remove", "shop")
