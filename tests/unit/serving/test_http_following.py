"""Following the store: what is swapped in, what is refused, and how a candidate is tried."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from starlette.testclient import TestClient

from components.data.dataset import PreparedDataset
from components.errors import StorageError
from components.provenance.signing import SigningKey, signing_key
from components.serving import following
from components.serving.candidate import Candidate, propose, withdraw
from components.serving.following import Follower
from components.serving.http_app import service_app
from components.serving.limits import Limits
from components.serving.live_model import LiveModel
from components.serving.metrics import Metrics
from components.serving.package_folder import RECORD, VOCABULARY
from components.serving.packaging import PackageContent, write_package
from components.serving.pointer import current, switch
from components.serving.predictor import Predictor
from components.serving.releases import Release, publish
from components.storage.atomic import read_json, write_json
from components.storage.digests import file_digest
from components.storage.folder_store import FolderStore
from components.tasks.building import open_task
from components.tasks.recommending import Question, Recommendations

CANDIDATE_KEYS = {"number", "version", "mode", "state", "requests", "errors", "p95_ms", "overlap"}


@pytest.fixture(scope="session")
def other_package(tmp_path_factory: pytest.TempPathFactory, content: PackageContent, artifacts: Path) -> Path:
    """The float variant of the same network: a package with other bytes and nearly the same answers."""
    variant = read_json(artifacts / "quantized" / "variants.json")["variants"][0]
    choice = {**content.choice, "chosen": variant["name"], "variant": variant, "sha256": variant["sha256"]}
    folder = tmp_path_factory.mktemp("other") / "package"
    folder.mkdir()
    changed = dataclasses.replace(content, model=artifacts / "quantized" / variant["file"], choice=choice)
    write_package(folder, changed, open_task("next_item", artifacts / "dataset", 8))
    return folder


class Place:
    """A store with releases, and a service that follows it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "store"
        self.store = FolderStore(self.folder)
        self.key = signing_key(folder / "keys")
        self.live = LiveModel(Metrics())
        self.follower = Follower(self.store, "tiny", self.live, lambda: (self.key.public,))
        self.client = TestClient(service_app(self.live, Limits()))

    def release(self, package: Path, version: int, key: SigningKey | None = None, name: str = "tiny") -> Release:
        created, signer = "2026-01-01T00:00:00+00:00", key or self.key
        verdict = {"passed": True}
        return publish(
            self.store, package, verdict, name=name, version=version, commit="1" * 40, created=created, key=signer
        )

    def point(self, release: Release) -> None:
        self.switch(release)

    def switch(self, release: Release, recalls: tuple[int, str] = (0, "")) -> None:
        key, keys = self.key, [self.key.public]
        before = current(self.store, "tiny", keys)
        facts: dict[str, Any] = {"kind": "deploy", "who": "me", "why": "", "recalls": recalls}
        expected = before.number if before else 0
        switch(self.store, "tiny", release, expected=expected, key=key, keys=keys, **facts)

    def propose(self, release: Release, mode: Any, share: float = 1.0, seconds: float = 60, number: str = "a") -> None:
        until = time.time() + seconds
        propose(
            self.store, Candidate("tiny", release.version, release.attestation, mode, share, until, number), self.key
        )

    def ask(self, history: tuple[str, ...] = ()) -> dict[str, Any]:
        answer = self.client.post("/recommend", json={"history": history, "k": 5})
        assert answer.status_code == 200
        return dict(answer.json())

    def model(self) -> dict[str, Any]:
        return dict(self.client.get("/model").json())

    def sample(self, line: str, **labels: str) -> float:
        return self.live.metrics.registry.get_sample_value(line, labels) or 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.live.stop()


def test_it_follows_the_pointer_forth_and_back(place: Place, package: Path, other_package: Path) -> None:
    place.follower.follow_pointer()
    assert place.client.get("/readyz").status_code == 503
    first, second = place.release(package, 1), place.release(other_package, 2)
    for number, release in enumerate((first, second, first), start=1):
        place.point(release)
        place.follower.follow_pointer()
        assert place.ask()["version"] == f"tiny@v{release.version}"
        model = place.model()
        assert (model["version"], model["attestation"]) == (release.version, release.attestation)
        assert model["files"] == {name: file for name, file in release.files.items() if name in model["files"]}
        assert model["lineage"]["teacher"] == "c" * 64
        assert place.sample("recstill_reloads_total") == number
    assert place.sample("recstill_live_version", version="tiny@v1") == 1
    assert place.live.metrics.registry.get_sample_value("recstill_live_version", {"version": "tiny@v2"}) is None


def flip(place: Place, release: Release, package: Path) -> None:
    path = place.folder / release.key("model.onnx")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(place: Place, release: Release, package: Path) -> None:
    (place.folder / release.key("golden.json")).unlink()


def forge(place: Place, release: Release, package: Path) -> None:
    """Sign with a key that nobody trusts."""
    shutil.rmtree(place.folder / "releases" / "tiny" / "v2")
    forged = place.release(package, 2, signing_key(place.folder / "others"))
    point_again(place, forged)


def replace(place: Place, release: Release, package: Path) -> None:
    """Put another release of the same signer in its place."""
    shutil.rmtree(place.folder / "releases" / "tiny" / "v2")
    copied = Path(shutil.copytree(package, place.folder.parent / "copy"))
    write_json(copied / RECORD, {**read_json(copied / RECORD), "note": "another"})
    place.release(copied, 2)


def missing(place: Place, release: Release, package: Path) -> None:
    shutil.rmtree(place.folder / "releases" / "tiny" / "v2")


def misbehave(place: Place, release: Release, package: Path) -> None:
    """Well signed, and answers its golden requests otherwise."""
    shutil.rmtree(place.folder / "releases" / "tiny" / "v2")
    copied = Path(shutil.copytree(package, place.folder.parent / "copy"))
    table = pl.read_parquet(copied / VOCABULARY)
    ids = table["id"].to_list()
    table.with_columns(id=pl.Series(ids[1:] + ids[:1])).write_parquet(copied / VOCABULARY)
    record = read_json(copied / RECORD)
    record["files"][VOCABULARY]["sha256"] = file_digest(copied / VOCABULARY)
    write_json(copied / RECORD, record)
    point_again(place, place.release(copied, 2))


def rename(place: Place, release: Release, package: Path) -> None:
    """A package of another scenario under this name."""
    shutil.rmtree(place.folder / "releases" / "tiny" / "v2")
    copied = Path(shutil.copytree(package, place.folder.parent / "copy"))
    write_json(copied / RECORD, {**read_json(copied / RECORD), "name": "huge"})
    point_again(place, place.release(copied, 2))


def nonsense(place: Place, release: Release, package: Path) -> None:
    (place.folder / "releases/tiny/prod/00000002.dsse.json").write_text("{}")


def point_again(place: Place, release: Release) -> None:
    (place.folder / "releases/tiny/prod/00000002.dsse.json").unlink()
    place.point(release)


HARM: dict[Callable[[Place, Release, Path], None], str] = {
    flip: "damaged",
    remove: "golden.json",
    forge: "no trusted key",
    replace: "not .* as pointed at",
    missing: "no release tiny@v2",
    misbehave: "golden request 0",
    rename: "huge",
    nonsense: "no DSSE envelope",
}


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_what_does_not_verify_is_refused_and_the_old_version_goes_on(
    place: Place, package: Path, other_package: Path, harm: Callable[[Place, Release, Path], None]
) -> None:
    place.point(place.release(package, 1))
    place.follower.start()
    second = place.release(other_package, 2)
    place.point(second)
    harm(place, second, other_package)
    for _ in range(3):
        place.follower._guarded(place.follower.follow_pointer)
        assert place.ask()["version"] == "tiny@v1"
    model = place.model()
    assert [one["role"] for one in model["refusals"]] == ["live"]
    assert pytest.approx(1) == place.sample("recstill_refusals_total", role="live")
    assert re.search(HARM[harm], model["refusals"][0]["reason"])
    assert str(place.folder.parent / "recstill-") not in model["refusals"][0]["reason"]
    place.follower.stop()


def test_a_refused_version_is_taken_once_it_is_repaired(
    place: Place, package: Path, other_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    second = place.release(other_package, 2)
    sound = (place.folder / second.key("model.onnx")).read_bytes()
    flip(place, second, other_package)
    place.point(second)
    place.follower.follow_pointer()
    (place.folder / second.key("model.onnx")).write_bytes(sound)
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v1", "it is not tried at every look"
    monkeypatch.setattr(following, "TRIED_AGAIN_SECONDS", 0.0)
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v2"


def test_a_store_that_is_away_for_a_while_changes_nothing(
    place: Place, package: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()

    def away(key: str) -> int:
        raise StorageError("the store is away")

    with caplog.at_level("INFO", "recstill.service"), monkeypatch.context() as patched:
        patched.setattr(place.store, "size", away)
        for _ in range(3):
            place.follower._guarded(place.follower.follow_pointer)
        assert place.ask()["version"] == "tiny@v1"
        patched.undo()
        place.follower._guarded(place.follower.follow_pointer)
    assert place.sample("recstill_store_errors_total") == 3
    assert [record.message.split()[0] for record in caplog.records] == [
        "event=store_unreadable",
        "event=store_readable",
    ]
    assert place.model()["refusals"] == []


def tried(place: Place, package: Path, other_package: Path, mode: str, share: float = 1.0) -> Release:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    second = place.release(other_package, 2)
    place.propose(second, mode, share)
    place.follower.follow_candidate()
    return second


@pytest.mark.parametrize("share", [0.1, 0.25, 1.0])
def test_a_canary_answers_exactly_its_share(place: Place, package: Path, other_package: Path, share: float) -> None:
    tried(place, package, other_package, "canary", share)
    versions = [place.ask()["version"] for _ in range(40)]
    assert versions.count("tiny@v2") == 40 * share
    found = place.model()["candidate"]
    assert found.keys() == CANDIDATE_KEYS
    assert (found["number"], found["version"], found["mode"], found["state"]) == ("a", 2, "canary", "loaded")
    assert (found["requests"], found["errors"], found["overlap"]) == (40 * share, 0, None)
    assert 0 < found["p95_ms"] < 1000
    assert place.sample("recstill_requests_total", endpoint="recommend", version="tiny@v2", role="canary") == 40 * share


def test_a_canary_that_fails_fails_for_nobody(
    place: Place, package: Path, other_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried(place, package, other_package, "canary")
    assert place.live.trial is not None and place.live.trial.model is not None

    def fails(questions: list[Question]) -> list[Recommendations]:
        raise RuntimeError("broken")

    monkeypatch.setattr(place.live.trial.model.predictor, "answer_all", fails)
    assert [place.ask()["version"] for _ in range(5)] == ["tiny@v1"] * 5
    found = place.model()["candidate"]
    assert (found["requests"], found["errors"]) == (5, 5)


def test_a_shadow_is_compared_and_never_seen(
    place: Place, package: Path, other_package: Path, prepared: PreparedDataset
) -> None:
    tried(place, package, other_package, "shadow")
    histories = [tuple(prepared.catalogue["id"].to_list()[start : start + 4]) for start in range(20)]
    assert {place.ask(history)["version"] for history in histories} == {"tiny@v1"}
    until = time.monotonic() + 10
    while place.model()["candidate"]["requests"] < 20 and time.monotonic() < until:
        time.sleep(0.01)
    found = place.model()["candidate"]
    assert (found["requests"], found["errors"], found["state"]) == (20, 0, "loaded")
    expected = []
    for history in histories:
        live, shadow = (
            {item.id for item in Predictor(folder).recommend(history, 5).items} for folder in (package, other_package)
        )
        expected.append(len(live & shadow) / 5)
    assert found["overlap"] == pytest.approx(sum(expected) / 20, abs=1e-3)
    assert found["p95_ms"] > 0


def test_a_candidate_ends_by_time_by_withdrawal_and_by_another_one(
    place: Place, package: Path, other_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = tried(place, package, other_package, "canary")
    assert place.ask()["version"] == "tiny@v2"
    place.propose(second, "canary", seconds=300, number="b")
    place.follower.follow_candidate()
    assert place.model()["candidate"]["requests"] == 0
    assert place.ask()["version"] == "tiny@v2"
    later = time.monotonic() + 301
    monkeypatch.setattr("components.serving.trial.time", SimpleNamespace(monotonic=lambda: later))
    assert place.ask()["version"] == "tiny@v1"
    found = place.model()["candidate"]
    assert (found["number"], found["state"], found["requests"]) == ("b", "expired", 1)
    withdraw(place.store, "tiny")
    place.follower.follow_candidate()
    assert place.model()["candidate"] is None


def test_a_candidate_that_does_not_verify_gets_no_request(place: Place, package: Path, other_package: Path) -> None:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    second = place.release(other_package, 2)
    flip(place, second, other_package)
    place.propose(second, "canary")
    place.follower.follow_candidate()
    place.follower.follow_candidate()
    assert {place.ask()["version"] for _ in range(5)} == {"tiny@v1"}
    model = place.model()
    assert (model["candidate"]["state"], model["candidate"]["requests"]) == ("refused", 0)
    assert [one["role"] for one in model["refusals"]] == ["candidate"]


def test_a_candidate_that_goes_live_is_not_loaded_again(place: Place, package: Path, other_package: Path) -> None:
    second = tried(place, package, other_package, "shadow")
    assert place.live.trial is not None
    loaded = place.live.trial.model
    place.point(second)
    place.follower.follow_pointer()
    assert place.live.current is loaded is not None


def test_nothing_of_a_release_is_left_on_the_disk(
    place: Place, package: Path, other_package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    tried(place, package, other_package, "shadow")
    assert list(scratch.iterdir()) == []
    assert json.dumps(place.model()).count(str(scratch)) == 0
