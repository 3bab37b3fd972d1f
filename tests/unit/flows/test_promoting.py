"""Bringing versions live and going back: what is checked, what is refused, who wins, and what git shows of it."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from components.errors import BudgetError, DataError, IntegrityError, StorageError
from components.provenance.signing import signing_key
from components.serving.candidate import Candidate, propose, read_candidate
from components.serving.package_folder import RECORD
from components.serving.pointer import Switch, current, history
from components.serving.releases import publish
from components.storage.atomic import read_json, write_json
from flows.checking import check_release
from flows.promoting import Approval, Order, bring_live
from flows.registry import newest_stage_tag, register, staged
from flows.repository import keys_of, store_of
from flows.switching import DeploymentError, before, mark_stage, release_of, roll_back
from flows.trial_run import TrialError, planned
from flows.trust import trusted
from flows.versions import version_rows
from tests.unit.flows.small_checkout import VERDICT, git, small_checkout, with_remote
from tests.unit.serving.conftest import artifacts, content, package  # noqa: F401  # fixtures


def nothing(line: str) -> None:
    """Nobody listens."""


class Models:
    """A checkout with versions 1 to 3 of ``tiny``, each tagged on a commit of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, store_of(root)

    def publish(self, version: int, package: Path, *, tag: bool = True) -> None:  # noqa: F811
        git(self.root, "commit", "-q", "--allow-empty", "-m", f"version {version}")
        commit = git(self.root, "rev-parse", "HEAD")
        created = f"2026-11-0{version}T00:00:00+00:00"
        key = signing_key(keys_of(self.root))
        # All but the first were held against the first one.
        verdict = VERDICT | ({"kind": "champion", "champion": {"version": 1}} if version > 1 else {})
        release = publish(
            self.store, package, verdict, name="tiny", version=version, commit=commit, created=created, key=key
        )
        if tag:
            register(self.root, "tiny", version, commit, release.attestation)

    def deploy(self, version: int | None = None, **order: Any) -> bool:
        return bring_live(self.root, Order("tiny", version, **order), nothing).switched

    def roll_back(self, to: int | None = None) -> Switch:
        return roll_back(self.root, "tiny", to, who="Tess", why="", say=nothing)

    @property
    def live(self) -> int | None:
        now = current(self.store, "tiny", trusted(self.root))
        return now.version if now else None

    def lose(self, version: int) -> None:
        """Take the attestation of a version out of the store."""
        (self.root / f".recstill/store/releases/tiny/v{version}/attestation.dsse.json").unlink()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Path:  # noqa: F811
    models = Models(small_checkout(tmp_path_factory.mktemp("made")))
    for version in (1, 2, 3):
        models.publish(version, package)
    return models.root


@pytest.fixture
def models(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Models:
    for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(made, tmp_path / "checkout", symlinks=True)
    return Models(tmp_path / "checkout")


def test_the_newest_version_goes_live_and_git_shows_it(models: Models) -> None:
    said: list[str] = []
    done = bring_live(models.root, Order("tiny", why="a first look"), said.append)
    assert (done.version, done.switched, models.live) == (3, True, 3)
    assert done.checked is not None and done.checked.golden == 4 and done.checked.p95_ms > 0
    entry = history(models.store, "tiny", trusted(models.root))[-1]
    assert (entry.who, entry.why, entry.kind) == ("Tess Ter", "a first look", "deploy")
    assert newest_stage_tag(models.root, "tiny") == "tiny#prod#1" and staged(models.root, "tiny") == 3
    assert any("golden" in line for line in said) and any("p95" in line for line in said)


def test_what_is_live_is_not_switched_to_again_but_a_missing_tag_is_made(models: Models) -> None:
    models.deploy(2)
    git(models.root, "tag", "-d", "tiny#prod#1")
    assert models.deploy(2) is False
    assert len(history(models.store, "tiny", trusted(models.root))) == 1 and staged(models.root, "tiny") == 2


def test_a_version_whose_registration_stopped_halfway_is_not_the_newest(models: Models, package: Path) -> None:  # noqa: F811
    models.publish(4, package, tag=False)
    models.deploy()
    assert models.live == 3
    rows = {row["version"]: row["state"] for row in version_rows(models.root, "tiny")[0]}
    assert rows == {4: "not tagged", 3: "live", 2: "registered", 1: "registered"}


def test_rollbacks_undo_one_deployment_after_the_other(models: Models) -> None:
    for version in (1, 2, 3):
        models.deploy(version)
    assert [models.roll_back().version for _ in range(2)] == [2, 1]
    with pytest.raises(DeploymentError, match="nothing to go back to"):
        models.roll_back()
    assert models.roll_back(3).version == 3, "even one that was live earlier"
    assert [one.kind for one in history(models.store, "tiny", trusted(models.root))] == ["deploy"] * 3 + [
        "rollback"
    ] * 3


def test_the_way_back_is_that_of_the_switches_not_of_their_clocks() -> None:
    def log(*switches: tuple[str, int]) -> list[Switch]:
        # Every clock is a year behind the one before.
        return [
            Switch(number, "m", version, "", kind, None, "", "", f"{2030 - number}-01-01")  # type: ignore[arg-type]
            for number, (kind, version) in enumerate(switches, 1)
        ]

    assert before([]) is None and before(log(("deploy", 1))) is None
    assert before(log(("deploy", 1), ("deploy", 2))) == 1
    assert before(log(("deploy", 1), ("deploy", 2), ("rollback", 1))) is None
    assert before(log(("deploy", 1), ("deploy", 2), ("rollback", 1), ("deploy", 3))) == 1
    assert before(log(("deploy", 1), ("deploy", 2), ("rollback", 1), ("rollback", 2))) == 1
    assert before(log(("deploy", 1), ("deploy", 2), ("deploy", 1))) == 2


@pytest.mark.parametrize(
    ("to", "words"), [(3, "was never live"), (2, "is live already"), (9, "was never live")], ids=["never", "live", "no"]
)
def test_a_rollback_that_makes_no_sense_is_refused(models: Models, to: int, words: str) -> None:
    models.deploy(1)
    models.deploy(2)
    with pytest.raises(DeploymentError, match=words):
        models.roll_back(to)
    with pytest.raises(DeploymentError, match="ever been live"):
        roll_back(models.root, "other", None, who="", why="", say=nothing)


def test_a_rollback_to_missing_or_damaged_bytes_is_refused_and_names_another(models: Models) -> None:
    for version in (1, 2, 3):
        models.deploy(version)
    models.lose(2)
    with pytest.raises(DeploymentError, match="tiny@v2 is not in"):
        models.roll_back()
    gate = next((models.root / ".recstill/store/releases/tiny/v1").glob("gate-*.json"))
    gate.chmod(0o644)
    gate.write_bytes(gate.read_bytes().replace(b"true", b"TRUE"))
    with pytest.raises(DeploymentError, match=r"tiny@v1 cannot be served: .*gate.json") as failure:
        models.roll_back(1)
    assert "v2" in failure.value.remedy and models.live == 3


def test_a_pointer_to_a_missing_package_is_told_and_one_gets_away_from_it(models: Models) -> None:
    models.deploy(1)
    models.deploy(2)
    models.lose(2)
    rows = {row["version"]: row["state"] for row in version_rows(models.root, "tiny")[0]}
    assert rows[2] == "missing"
    assert models.roll_back().version == 1
    assert models.deploy(3)


def test_what_does_not_verify_is_not_deployed(models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = next((models.root / ".recstill/store/packages").glob("*/model.onnx"))
    content_of = bytearray(model.read_bytes())
    content_of[len(content_of) // 2] ^= 1
    model.chmod(0o644)
    model.write_bytes(content_of)
    with pytest.raises(IntegrityError, match=r"model\.onnx"):
        models.deploy(1)
    other = signing_key(tmp_path / "other").public.pem
    monkeypatch.setenv("RECSTILL_TRUSTED_KEYS", other)
    with pytest.raises(DeploymentError, match="no trusted key has signed"):
        models.deploy(1)
    monkeypatch.delenv("RECSTILL_TRUSTED_KEYS")
    with pytest.raises(IntegrityError, match="was announced"):
        models.deploy(1, attestation="0" * 64)
    with pytest.raises(DeploymentError, match=r"v1, v2, v3"):
        models.deploy(7)
    with pytest.raises(DeploymentError, match="nearest known one is 'tiny'"):
        bring_live(models.root, Order("tinny"), nothing)
    assert models.live is None and newest_stage_tag(models.root, "tiny") is None


def changed(package: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:  # noqa: F811
    """A copy of a package with another record."""
    shutil.copytree(package, folder)
    record = read_json(folder / RECORD)
    change(record)
    write_json(folder / RECORD, record)
    return folder


def test_a_package_that_is_too_slow_here_or_of_another_model_is_refused(
    models: Models,
    package: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    models.publish(
        4, changed(package, tmp_path / "slow", lambda record: record["params"].update(budget={"max_p95_ms": 1e-6}))
    )
    with pytest.raises(BudgetError, match=r"budget.max_p95_ms is 1e-06"):
        models.deploy(4)
    models.publish(5, changed(package, tmp_path / "other", lambda record: record.update(name="another")))
    with pytest.raises(IntegrityError, match="package of 'another'"):
        models.deploy(5)
    generous = changed(package, tmp_path / "fast", lambda record: record["params"].update(budget={"max_p95_ms": 1e3}))
    models.publish(6, generous)
    assert check_release(models.store, release_of(models.root, models.store, "tiny", 6), nothing).limit_ms == 1e3
    assert models.deploy(6)


def test_of_two_deployments_at_once_one_wins_and_the_other_is_told(models: Models) -> None:
    together = threading.Barrier(2)

    def step(title: str, work: Callable[[], Any]) -> Any:
        if title == "switch":
            together.wait(timeout=30)
        return work()

    def one(version: int) -> str:
        try:
            return bring_live(models.root, Order("tiny", version), nothing, step=step).text
        except DeploymentError as error:
            return str(error)

    with ThreadPoolExecutor(2) as threads:
        texts = sorted(threads.map(one, (1, 2)))
    assert [text for text in texts if "was faster" in text] == [texts[0]] and "is live (switch 1)" in texts[1]
    assert len(history(models.store, "tiny", trusted(models.root))) == 1


def test_a_switch_while_a_version_was_being_checked_is_a_conflict(models: Models) -> None:
    def step(title: str, work: Callable[[], Any]) -> Any:
        if title == "switch":
            assert models.deploy(2), "somebody else, meanwhile"
        return work()

    with pytest.raises(DeploymentError, match="v2 is live, by Tess Ter"):
        bring_live(models.root, Order("tiny", 1), nothing, step=step)
    assert models.live == 2 and staged(models.root, "tiny") == 2


def test_an_event_brings_nothing_back_that_was_rolled_back_or_is_older(models: Models) -> None:
    known = {version: release_of(models.root, models.store, "tiny", version).attestation for version in (1, 2, 3)}
    assert models.deploy(1, attestation=known[1]) and models.deploy(3, attestation=known[3])
    assert not models.deploy(2, attestation=known[2]), "it comes late"
    models.roll_back()
    assert not models.deploy(3, attestation=known[3]), "told again after a person has gone back"
    assert models.live == 1
    assert models.deploy(3), "a person may"


def test_an_event_brings_nothing_live_that_was_judged_against_another_version(
    models: Models,
    package: Path,  # noqa: F811
) -> None:
    models.publish(4, package)  # held against v1
    judged = release_of(models.root, models.store, "tiny", 4).attestation
    assert models.deploy(1) and models.deploy(2)
    assert not models.deploy(4, attestation=judged), "v2 is live, and nobody has compared them"
    assert models.live == 2
    models.roll_back()
    assert models.deploy(4, attestation=judged) and models.live == 4


def test_going_back_ends_a_trial(models: Models) -> None:
    assert models.deploy(1) and models.deploy(2)
    propose(
        models.store,
        Candidate("tiny", 3, "a" * 64, "canary", 0.5, time.time() + 9_999, "left by a killed deployment"),
        signing_key(keys_of(models.root)),
    )
    models.roll_back()
    assert read_candidate(models.store, "tiny", trusted(models.root)) is None


@pytest.mark.parametrize("yes", [True, False])
def test_who_approved_and_why_is_recorded_and_a_no_changes_nothing(models: Models, yes: bool) -> None:
    def work() -> None:
        bring_live(models.root, Order("tiny", 1), nothing, ask=lambda *_: Approval(yes, "Ann", "looks right"))

    if yes:
        work()
        assert (
            history(models.store, "tiny", trusted(models.root))[0].who,
            history(models.store, "tiny", trusted(models.root))[0].why,
        ) == ("Ann", "looks right")
    else:
        with pytest.raises(DeploymentError, match="Ann does not approve"):
            work()
        assert models.live is None


def test_a_git_remote_that_is_away_stops_no_deployment_and_is_made_up_for(models: Models) -> None:
    remote = with_remote(models.root)
    git(models.root, "push", "-q", "origin", "--tags")
    away = remote.rename(remote.with_name("away.git"))
    said: list[str] = []
    bring_live(models.root, Order("tiny", 3), said.append)
    assert models.live == 3 and any("git does not show yet" in line for line in said)
    away.rename(remote)
    mark_stage(models.root, models.store, "tiny", nothing)
    assert "tiny#prod#1" in git(remote, "tag")


def test_a_store_that_cannot_be_reached_is_one_clear_error(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECSTILL_STORE", "ftp://elsewhere")
    with pytest.raises(StorageError, match="unknown kind of store"):
        models.deploy(1)


class Service:
    """Answers ``/model`` as a service with a candidate does; what the figures are, the test says."""

    def __init__(self, models: Models, figures: dict[str, Any]) -> None:
        self.seen: list[str] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                candidate = read_candidate(models.store, "tiny", trusted(models.root))
                shown = None
                if candidate is not None:
                    outer.seen.append(candidate.number)
                    base = {"number": candidate.number, "version": candidate.version, "mode": candidate.mode}
                    shown = {**base, "state": "loaded", "requests": 9, "errors": 0, "p95_ms": 1.0, "overlap": 0.9}
                    turns = {key: next(one) if isinstance(one, Iterator) else one for key, one in figures.items()}
                    shown.update(turns)
                body = json.dumps({"candidate": shown}).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serving(models: Models) -> Iterator[Callable[..., Service]]:
    started: list[Service] = []

    def start(**figures: Any) -> Service:
        started.append(Service(models, figures))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.mark.parametrize("mode", ["canary", "shadow"])
def test_a_candidate_that_stands_its_trial_goes_live_and_is_withdrawn(
    models: Models, serving: Callable[..., Service], mode: str
) -> None:
    service = serving()
    done = bring_live(models.root, Order("tiny", 2, trial=planned(mode, 0.2, 0.6, service.address)), nothing)
    assert done.trial is not None and done.trial["requests"] == 9 and models.live == 2
    assert service.seen and read_candidate(models.store, "tiny", trusted(models.root)) is None


def test_of_several_services_behind_one_address_one_may_have_got_no_request(
    models: Models, serving: Callable[..., Service]
) -> None:
    service = serving(requests=itertools.chain([0, 9], itertools.repeat(0)))
    done = bring_live(models.root, Order("tiny", 2, trial=planned("canary", 0.2, 1.2, service.address)), nothing)
    assert done.trial is not None and done.trial["requests"] == 9 and models.live == 2


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"errors": 1}, "failed 1 of 9 requests"),
        ({"state": "refused"}, "the service refuses tiny@v2"),
        ({"requests": 0}, "got no request"),
        ({"number": "of another trial"}, "has not taken tiny@v2 up"),
    ],
)
def test_a_candidate_that_fails_its_trial_is_withdrawn_and_nothing_changes(
    models: Models,
    serving: Callable[..., Service],
    monkeypatch: pytest.MonkeyPatch,
    figures: dict[str, Any],
    words: str,
) -> None:
    monkeypatch.setattr("flows.trial_run._TAKE_UP_SECONDS", 1.0)
    models.deploy(1)
    with pytest.raises(TrialError, match=words):
        models.deploy(2, trial=planned("canary", 0.5, 0.6, serving(**figures).address))
    assert models.live == 1 and read_candidate(models.store, "tiny", trusted(models.root)) is None


def test_a_service_that_does_not_answer_leaves_no_candidate_behind(
    models: Models, serving: Callable[..., Service]
) -> None:
    service = serving()
    service.stop()
    started = time.monotonic()
    with pytest.raises(TrialError, match="does not answer"):
        models.deploy(2, trial=planned("shadow", 1.0, 5, service.address))
    assert time.monotonic() - started < 10
    assert models.live is None and read_candidate(models.store, "tiny", trusted(models.root)) is None


def test_one_candidate_at_a_time_but_not_for_ever(models: Models, serving: Callable[..., Service]) -> None:
    known = release_of(models.root, models.store, "tiny", 3).attestation
    plan = planned("canary", 0.5, 0.6, serving().address)
    key = signing_key(keys_of(models.root))
    other = Candidate("tiny", 3, known, "shadow", 1.0, time.time() + 60, "of another trial")
    propose(models.store, other, key)
    with pytest.raises(TrialError, match="tiny@v3 is on trial now"):
        models.deploy(2, trial=plan)
    assert read_candidate(models.store, "tiny", trusted(models.root)) == other, "it is not ours to withdraw"
    # Proposed by a clock that was years ahead, or left by a deployment that was killed.
    for version, until in ((1, time.time() + 1e8), (2, time.time() - 1)):
        propose(models.store, other._replace(until=until), key)
        assert models.deploy(version, trial=plan)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("beta", 0.1, 5, "http://x"), "no kind of trial"),
        (("canary", 0.1, 5, None), "needs a running service"),
        (("canary", 0.0, 5, "http://x"), "share of 0.0"),
        (("canary", float("nan"), 5, "http://x"), "share of nan"),
        (("shadow", 1.0, 0, "http://x"), "shadow of 0 s"),
        (("shadow", 1.0, 5, "file:///etc/passwd"), "is no address"),
    ],
)
def test_settings_of_a_trial_that_cannot_be_are_refused(settings: tuple[Any, ...], words: str) -> None:
    with pytest.raises(DataError, match=words):
        planned(*settings)
    assert planned(None, 9, 9, None) is None


def test_a_server_that_is_down_stops_no_deployment_and_no_rollback(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    said: list[str] = []
    bring_live(models.root, Order("tiny", 1), said.append)
    assert models.live == 1 and any("does not answer" in line for line in said)
