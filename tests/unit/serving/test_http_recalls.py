"""What a service does when something is recalled: what answers goes on loudly, and nothing recalled is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.provenance.recalls import put_recall, recall_log, recall_state
from components.provenance.signing import SigningKey, signing_key
from components.serving import following
from components.serving.releases import Release
from tests.unit.serving.test_http_following import Place, other_package

__all__ = ["other_package"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.live.stop()


@pytest.fixture
def again(tmp_path: Path) -> Iterator[Callable[[], Place]]:
    """The service of the same store, started again."""
    started: list[Place] = []

    def start() -> Place:
        started.append(Place(tmp_path))
        started[-1].follower.follow_pointer()
        return started[-1]

    yield start
    for one in started:
        one.live.stop()


def recall(place: Place, *digests: str, key: SigningKey | None = None, **facts: Any) -> int:
    expected = recall_state(place.store, [place.key.public]).number
    named: dict[str, Any] = {"kind": "release", "name": "tiny@v2", "reason": "it leaks", "who": "Ann", **facts}
    return put_recall(place.store, digests=digests, expected=expected, key=key or place.key, **named).number


def two_versions(place: Place, package: Path, other_package: Path) -> tuple[Release, Release]:
    first, second = place.release(package, 1), place.release(other_package, 2)
    place.point(first)
    place.follower.follow_pointer()
    place.point(second)
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v2"
    return first, second


def test_what_answers_when_it_is_recalled_goes_on_and_says_so_everywhere(
    place: Place, package: Path, other_package: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _, second = two_versions(place, package, other_package)
    assert place.client.get("/readyz").json() == {"ready": True, "version": "tiny@v2"}
    number = recall(place, second.attestation)
    with caplog.at_level("INFO", "recstill.service"):
        for _ in range(3):
            place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v2"
    ready = place.client.get("/readyz")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "version": "tiny@v2", "recalled": [number]})
    assert "it leaks" not in ready.text, "its reason is for those who may ask /model"
    assert [one["reason"] for one in place.model()["recalled"]] == ["it leaks"]
    assert place.sample("recstill_recalled_version", version="tiny@v2", answers="yes") == 1
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1 and "event=recalled" in lines[0] and "it leaks" in lines[0]
    recall(place, second.attestation, lifts=number, reason="it does not")
    place.follower.follow_pointer()
    assert place.client.get("/readyz").json() == {"ready": True, "version": "tiny@v2"}
    assert place.model()["recalled"] == []
    assert place.live.metrics.text()[0].count(b"recstill_recalled_version{") == 0


def test_a_service_that_starts_again_answers_with_the_newest_earlier_version_that_is_not_recalled(
    place: Place, package: Path, other_package: Path, again: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two_versions(place, package, other_package)
    number = recall(place, second.package)
    started = again()
    assert started.ask()["version"] == "tiny@v1"
    ready = started.client.get("/readyz")
    stands_for = {"version": "tiny@v2", "recalled": [number]}
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "version": "tiny@v1", "instead_of": stands_for})
    assert started.model()["instead_of"]["recalled"][0]["reason"] == "it leaks"
    assert started.sample("recstill_recalled_version", version="tiny@v2", answers="no") == 1
    assert "is recalled" in started.model()["refusals"][0]["reason"]
    # Once the recall is lifted it goes back to what is live.
    recall(place, second.package, lifts=number, reason="it does not")
    monkeypatch.setattr(following, "TRIED_AGAIN_SECONDS", 0.0)
    started.follower.follow_pointer()
    assert started.ask()["version"] == "tiny@v2" and started.model()["instead_of"] is None
    assert started.client.get("/readyz").json() == {"ready": True, "version": "tiny@v2"}
    assert first.version == 1


def test_a_recalled_data_set_takes_all_that_came_of_it_and_the_service_says_why_it_is_not_ready(
    place: Place, package: Path, other_package: Path, again: Callable[[], Place]
) -> None:
    first, second = two_versions(place, package, other_package)
    assert first.lineage["dataset"] == second.lineage["dataset"]
    recall(place, first.lineage["dataset"], kind="dataset", name="tiny@main")
    started = again()
    ready = started.client.get("/readyz")
    assert ready.status_code == 503 and not ready.json()["ready"]
    assert "tiny@v2 is recalled (recall 1), and no version" in ready.json()["reason"]
    answer = started.client.post("/recommend", json={"history": []})
    assert answer.status_code == 503 and "is recalled (recall 1)" in answer.json()["reason"]
    assert {one["version"] for one in started.model()["refusals"]} == {"tiny@v1", "tiny@v2"}
    for _ in range(3):
        started.follower.follow_pointer()
    assert len(started.model()["refusals"]) == 2, "each is told once"


def test_a_running_service_does_not_take_up_what_is_recalled(place: Place, package: Path, other_package: Path) -> None:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    second = place.release(other_package, 2)
    recall(place, second.files["model.onnx"], kind="file")
    place.point(second)
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v1"
    assert place.client.get("/readyz").json()["instead_of"] == {"version": "tiny@v2", "recalled": [1]}
    third = place.release(package, 3)
    place.point(third)
    place.follower.follow_pointer()
    assert place.client.get("/readyz").json() == {"ready": True, "version": "tiny@v3"}
    assert place.live.metrics.text()[0].count(b"recstill_recalled_version{") == 0


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_candidate_that_is_recalled_gets_no_more_requests_and_never_goes_live(
    place: Place, package: Path, other_package: Path, mode: str
) -> None:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    second = place.release(other_package, 2)
    place.propose(second, mode)
    place.follower.follow_candidate()
    assert place.model()["candidate"]["state"] == "loaded"
    recall(place, second.attestation)
    for _ in range(2):
        place.follower.follow_candidate()
    assert place.model()["candidate"]["state"] == "refused"
    assert [one["role"] for one in place.model()["refusals"]] == ["candidate"]
    assert {place.ask()["version"] for _ in range(3)} == {"tiny@v1"}
    place.point(second)  # it is in memory, and is not taken from there either
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v1"


def test_a_recall_while_a_version_is_being_loaded_is_not_overlooked(
    place: Place, package: Path, other_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    second = place.release(other_package, 2)
    place.point(second)
    load = place.follower._loader.load

    def slow(version: int, attestation: str) -> Any:
        model = load(version, attestation)
        recall(place, second.attestation)
        return model

    with monkeypatch.context() as patched:
        patched.setattr(place.follower._loader, "load", slow)
        place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v1"
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v1" and "is recalled" in place.model()["refusals"][0]["reason"]


def cut(place: Place) -> None:
    """Take the newest recall away; the switch of v2 names it."""
    place.store.delete(recall_log(place.store).key(1))


def forge(place: Place) -> None:
    """Somebody who is not trusted has something recalled."""
    recall(place, "0" * 64, key=signing_key(place.folder / "others"))


@pytest.mark.parametrize("harm", [cut, forge], ids=lambda harm: harm.__name__)
def test_a_log_of_recalls_that_is_not_right_stops_loading_and_nothing_else(
    place: Place, package: Path, other_package: Path, again: Callable[[], Place], harm: Callable[[Place], None]
) -> None:
    recall(place, f"{7:064x}")
    place.point(place.release(package, 1))
    head = recall_state(place.store, [place.key.public])
    second = place.release(other_package, 2)
    place.follower.follow_pointer()
    place.switch(second, recalls=(head.number, head.digest))
    place.follower.follow_pointer()
    harm(place)
    place.follower._guarded(place.follower.follow_pointer)
    assert place.ask()["version"] == "tiny@v2", "what answers goes on"
    started = Place(place.folder.parent)
    started.follower._guarded(started.follower.follow_pointer)
    ready = started.client.get("/readyz")
    assert ready.status_code == 503 and "/model says why" in ready.json()["reason"]
    assert "of recalls" in started.model()["refusals"][0]["reason"] or "recalls in" in str(started.model()["refusals"])
    started.live.stop()


def test_looking_costs_two_questions_for_a_size_while_nothing_changes(
    place: Place, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recall(place, f"{7:064x}")
    place.point(place.release(package, 1))
    place.follower.follow_pointer()
    assert place.ask()["version"] == "tiny@v1"
    asked: list[str] = []
    size = place.store.size

    def counted(key: str) -> int | None:
        asked.append(key)
        return size(key)

    def never(*_: Any) -> Any:
        raise AssertionError("nothing is read while nothing changes")

    monkeypatch.setattr(place.store, "size", counted)
    for name in ("get", "list"):
        monkeypatch.setattr(place.store, name, never)
    place.follower.follow_pointer()
    assert asked == ["releases/tiny/prod/00000002.dsse.json", "recalls/00000002.dsse.json"]
