"""The commands on caches, on a real S3 server, in a repository of git whose stages DVC has really run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from components.soft_labels.inventory import read_cache
from components.soft_labels.manifest import Manifest, written
from components.storage.object_store import ObjectStore, open_store
from flows.cli import app
from tests.integration.conftest import SECRET_KEY, S3Server
from tests.unit.soft_labels.table_teacher import SETTINGS, TableTeacher, cache_in

BIN = Path(sys.executable).parent
IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")
MANIFEST = "artifacts/shop/soft_labels/manifest.json"
STAGES = {
    "soft_labels": {
        "foreach": ["shop"],
        "do": {
            "cmd": f"mkdir -p artifacts/shop/soft_labels && cp written.json {MANIFEST}",
            "deps": ["written.json"],
            "outs": [MANIFEST],
        },
    }
}


@pytest.fixture
def address(s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    found = f"s3://{s3_environment.new_bucket()}/shared"
    monkeypatch.setenv("RECSTILL_STORE", found)
    return found


@pytest.fixture
def store(address: str) -> ObjectStore:
    return open_store(address)


@pytest.fixture
def manifest(store: ObjectStore) -> Manifest:
    return cache_in(store, TableTeacher())


@pytest.fixture
def checkout(tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose scenario `shop` made the manifest, with a remote to which its bytes were pushed."""
    root = tmp_path / "checkout"
    root.mkdir()
    monkeypatch.chdir(root)
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    (root / "written.json").write_bytes(written(manifest))
    dvc = str(BIN / "dvc")
    for command in (
        ["git", "init", "-q", "-b", "main"],
        [dvc, "init", "-q"],
        [dvc, "config", "core.analytics", "false"],
        [dvc, "remote", "add", "-q", "-d", "backup", str(tmp_path / "remote")],
        [dvc, "repro", "-q"],
        [dvc, "push", "-q"],
        ["git", "add", "-A"],
        ["git", *IDENTITY, "commit", "-q", "-m", "a run"],
    ):
        subprocess.run(command, cwd=root, check=True, capture_output=True)
    return root


def git(root: Path, *command: str) -> None:
    subprocess.run(["git", *IDENTITY, *command], cwd=root, check=True, capture_output=True)


def call(*words: str) -> Result:
    done = CliRunner().invoke(app, list(words))
    assert SECRET_KEY not in done.output + str(done.exception)
    return done


def printed(*words: str) -> str:
    done = call(*words)
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def refused(*words: str) -> str:
    done = call(*words)
    assert done.exit_code == 1 and hasattr(done.exception, "remedy"), (done.output, done.exception)
    return str(done.exception)


def flip(s3: S3Server, address: str, key: str) -> None:
    """Change one byte of an object, as a client apart from the code under test."""
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    place = {"Bucket": bucket, "Key": f"{prefix}/{key}"}
    content = bytearray(s3.client().get_object(**place)["Body"].read())
    content[len(content) // 2] ^= 1
    s3.client().put_object(**place, Body=bytes(content))


def test_a_cache_is_listed_shown_and_verified_byte_by_byte(
    checkout: Path, store: ObjectStore, manifest: Manifest, s3_environment: S3Server, address: str
) -> None:
    git(checkout, "tag", "shop@v1.0.0")
    (record,) = json.loads(printed("soft-labels", "list", "--json"))["caches"]
    assert (record["id"], record["state"], record["rows"]) == (manifest.id, "complete", manifest.rows)
    users = {(one["kind"], one["name"]) for one in record["used_by"]}
    assert users == {("version", "shop@v1.0.0"), ("workspace", str(checkout)), ("branch", "main")}
    assert f"{address}/soft-labels/{manifest.id}/" in printed("soft-labels", "show", "shop")
    assert "every byte is as it was written" in printed("soft-labels", "verify", "shop")
    flip(s3_environment, address, manifest.key(manifest.parts[1].name))
    store.delete(manifest.key("part-00002.json"))
    done = call("soft-labels", "verify", "--all", "--json")
    (verdict,) = json.loads(done.output)["caches"]
    assert done.exit_code == 1
    assert {(one["kind"], one["key"]) for one in verdict["findings"]} == {
        ("damaged", manifest.key(manifest.parts[1].name)),
        ("missing", manifest.key("part-00002.json")),
    }
    assert cache_in(store, TableTeacher()) == manifest, "scoring again heals it"
    assert "every byte is as it was written" in printed("soft-labels", "verify", manifest.id[:10])


def test_what_a_version_needs_is_found_out_in_the_store_in_the_cache_of_dvc_and_in_its_remote(
    checkout: Path, store: ObjectStore, manifest: Manifest, tmp_path: Path
) -> None:
    git(checkout, "tag", "shop@v1.0.0")
    git(checkout, "checkout", "-q", "--orphan", "empty")
    git(checkout, "rm", "-rfq", ".")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "nothing")
    git(checkout, "branch", "-D", "main")
    git(checkout, "checkout", "-q", "shop@v1.0.0", "--", "dvc.yaml", ".dvc")
    shutil.rmtree(checkout / "artifacts")
    needed = f"cache {manifest.id[:12]} is needed by version shop@v1.0.0 (scenario shop)"
    remove = ("soft-labels", "remove", manifest.id, "--yes", "--force")
    assert needed in refused(*remove)
    content = store.get(manifest.key("manifest.json"))
    store.delete(manifest.key("manifest.json"))
    assert needed in refused(*remove), "by the cache of DVC"
    shutil.rmtree(checkout / ".dvc" / "cache")
    assert needed in refused(*remove), "by the remote of DVC"
    # A remote whose bytes are not what they were is as good as none.
    (kept,) = (path for path in (tmp_path / "remote").rglob("*") if path.is_file() and path.read_bytes() == content)
    kept.chmod(0o644)
    kept.write_bytes(content.replace(manifest.id.encode(), b"c" * 64))
    for words in (remove, ("store", "gc", "--unreferenced", "--older-than", "0s", "--yes")):
        assert "not known which cache these refer to, nothing is deleted: version shop@v1.0.0" in refused(*words)
    assert "0 unreachable" in printed("store", "gc", "--older-than", "0s", "--yes")
    assert store.size(manifest.key(manifest.parts[0].name)) is not None
    git(checkout, "tag", "-d", "shop@v1.0.0")
    assert "deleted 6 objects" in printed(*remove)
    assert list(store.list("")) == []


def test_gc_deletes_what_it_named_and_nothing_else_of_a_shared_store(
    checkout: Path, store: ObjectStore, manifest: Manifest, s3_environment: S3Server, address: str
) -> None:
    unfinished = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 4}))
    store.delete(unfinished.key("manifest.json"))
    stray = manifest.key("part-00001-0123456789abcdef.safetensors")
    sha256 = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    store.put(stray, b"x", sha256)
    store.put("data/events.csv", b"x", sha256)
    bucket, _, prefix = address.removeprefix("s3://").partition("/")
    client = s3_environment.client()
    client.create_multipart_upload(Bucket=bucket, Key=f"{prefix}/{manifest.key('large')}")
    time.sleep(1.1)  # the server tells times in whole seconds
    assert json.loads(printed("store", "gc", "--dry-run", "--json"))["unreachable"] == []
    record = json.loads(printed("store", "gc", "--older-than", "0s", "--dry-run", "--json"))
    named = {one["key"].partition("?")[0] for one in record["unreachable"]}
    parts = {entry.key for entry in store.list(f"soft-labels/{unfinished.id}/")}
    assert named == {stray, manifest.key("large"), *parts}
    assert "deleted 8 objects" in printed("store", "gc", "--older-than", "0s", "--yes")
    assert [entry.key.split("/")[1] for entry in store.list("")].count(manifest.id) == 7
    assert store.size("data/events.csv") == 1 and len(list(store.list(""))) == 8
    assert not client.list_multipart_uploads(Bucket=bucket).get("Uploads")
    assert "every byte" in printed("soft-labels", "verify", "shop")


def test_a_removal_that_is_interrupted_leaves_no_half_cache_to_read_and_the_next_one_finishes_it(
    checkout: Path, store: ObjectStore
) -> None:
    large = cache_in(store, TableTeacher(), SETTINGS.model_copy(update={"k": 3, "rows_per_part": 1}))
    command = [str(BIN / "recstill"), "soft-labels", "remove", large.id[:12], "--yes"]
    before = len(list(store.list(f"soft-labels/{large.id}/")))
    removal = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while removal.poll() is None and store.size(large.key("manifest.json")) is not None:
        time.sleep(0.005)
    removal.send_signal(signal.SIGINT)
    _, errors = removal.communicate(timeout=60)
    left = read_cache(store, large.id)
    assert left is not None and left.state == "incomplete" and len(left.objects) < before
    assert removal.returncode == 130 and "Traceback" not in errors
    assert "interrupted" in errors and f"soft-labels remove {large.id[:12]}` goes on" in errors
    assert f"deleted {len(left.objects)} objects" in printed("soft-labels", "remove", large.id, "--yes")
    assert read_cache(store, large.id) is None


@pytest.mark.parametrize("fault", ["wrong secret", "nobody listens", "no bucket"])
def test_a_store_that_cannot_be_read_is_one_clear_error(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(tmp_path)
    if fault == "wrong secret":
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    elif fault == "nobody listens":
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    else:
        monkeypatch.setenv("RECSTILL_STORE", "s3://there-is-no-such-bucket")
    command = [str(BIN / "recstill"), "soft-labels", "verify", "--all"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=os.environ)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) <= 2
    assert "not-the-secret" not in done.stderr


def test_a_manifest_and_a_record_that_contradict_their_own_digest_are_named_and_hide_nothing(
    s3_server: S3Server, address: str, checkout: Path, manifest: Manifest
) -> None:
    client = s3_server.client()
    bucket, prefix = address.removeprefix("s3://").split("/")

    def spoil(name: str) -> None:
        place = {"Bucket": bucket, "Key": f"{prefix}/{manifest.key(name)}"}
        found = client.get_object(**place)
        content = found["Body"].read()
        client.put_object(**place, Body=content.replace(b"0.", b"1.", 1), Metadata=found["Metadata"])

    spoil("part-00001.json")
    done = CliRunner().invoke(app, ["soft-labels", "verify", manifest.id[:8], "--json"])
    assert done.exit_code == 1
    assert "part-00001.json" in done.stdout and "part-00000.json" not in done.stdout
    spoil("manifest.json")
    done = CliRunner().invoke(app, ["soft-labels", "list"])
    assert done.exit_code == 0
    assert "damaged" in done.stdout and manifest.id[:8] in done.stdout
