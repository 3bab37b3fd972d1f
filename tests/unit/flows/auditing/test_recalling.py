"""Recalls from the command line: what a name reaches, in every scenario, and what is refused from then on."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

from components.errors import DataError, RecstillError
from components.provenance.recalls import RecalledError, every_recall, recalls
from components.provenance.signing import signing_key
from components.provenance.stage_statement import FileDigests, StageStatement, of_lock_entry, publish_statement
from components.serving.package_folder import RECORD
from components.serving.pointer import switch
from components.serving.releases import Release, publish, read_release
from components.storage.atomic import read_json, write_json
from flows import deploy_cli, recall_cli
from flows.auditing.exit_status import FOUND
from flows.promoting import Order, bring_live
from flows.repository import keys_of, store_of
from flows.surveying import _refuse_recalled_data, _warm_start
from flows.switching import roll_back
from flows.trust import trusted
from flows.versions import version_rows
from tests.unit.flows.small_checkout import VERDICT, git
from tests.unit.serving.conftest import artifacts, content, package

__all__ = ["artifacts", "content", "package"]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


class Shops:
    """Two scenarios of one repository and store; what an artifact is made of is a word, and its digests follow."""

    def __init__(self, root: Path, package: Path) -> None:
        self.root, self.package = root, package
        root.mkdir()
        (root / "dvc.yaml").write_text("stages: {}\n")
        (root / ".gitignore").write_text("/.recstill/\n")
        git(root, "init", "-q", "-b", "main")
        git(root, "config", "user.name", "Tess Ter")
        git(root, "config", "user.email", "tess@example.org")
        self.store, self.key = store_of(root), signing_key(keys_of(root))

    def commit(self, scenario: str, data: str, teacher: str, warm: str | None = None) -> str:
        """A lock in which a package came from a teacher that came from data."""

        def out(path: str, word: str) -> dict[str, Any]:
            folder = "." not in path.rpartition("/")[2]
            return {"path": path, "hash": "md5", "md5": md5(word) + (".dir" if folder else ""), "size": 1}

        place = f"artifacts/{scenario}"
        events, dataset = out(f"{place}/events.parquet", f"events {data}"), out(f"{place}/dataset", data)
        taught, packed = out(f"{place}/teacher", teacher), out(f"{place}/package", f"package {teacher}")
        settings = {f"scenarios.{scenario}.teacher": {"warm_start": sha(warm) if warm else None}}
        stages = {
            f"read@{scenario}": {"cmd": "read", "outs": [events]},
            f"order@{scenario}": {"cmd": "order", "deps": [events], "outs": [dataset]},
            f"teach@{scenario}": {
                "cmd": "teach", "deps": [dataset], "params": {"params.yaml": settings}, "outs": [taught],
            },
            f"pack@{scenario}": {"cmd": "pack", "deps": [dataset, taught], "outs": [packed]},
        }  # fmt: skip
        lock = {"schema": "2.0", "stages": self.stages() | stages}
        (self.root / "dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))
        git(self.root, "add", "-A")
        git(self.root, "commit", "-q", "-m", f"{scenario} {data} {teacher}", "--allow-empty")
        return git(self.root, "rev-parse", "HEAD")

    def stages(self) -> dict[str, Any]:
        path = self.root / "dvc.lock"
        return dict(yaml.safe_load(path.read_text())["stages"]) if path.is_file() else {}

    def release(self, scenario: str, version: int, data: str, teacher: str, warm: str | None = None) -> Release:
        commit = self.commit(scenario, data, teacher, warm)
        folder = self.root.parent / f"{scenario}-{version}"
        shutil.copytree(self.package, folder)
        lineage = {"source": sha(f"events {data}"), "dataset": sha(data), "teacher": sha(teacher), "commit": commit}
        write_json(folder / RECORD, {**read_json(folder / RECORD), "name": scenario, "lineage": lineage})
        facts = {"name": scenario, "version": version, "commit": commit, "created": "2026-01-01T00:00:00+00:00"}
        return publish(self.store, folder, VERDICT, **facts, key=self.key)  # type: ignore[arg-type]

    def attest(self, address: str, digests: Mapping[str, str]) -> None:
        """A signed statement about a stage of the lock that lies here."""
        files = {"artifacts/a/file": FileDigests(sha("file"), md5("file"), 1)}
        statement = StageStatement(
            **of_lock_entry(address, self.stages()[address]),
            subjects=files, commit="1" * 40, dirty=False, who="Tess", digests=digests,
        )  # fmt: skip
        assert publish_statement(self.store, statement, self.key)

    def live(self, release: Release, number: int = 1) -> None:
        facts: dict[str, Any] = {"kind": "deploy", "who": "Tess", "why": "", "key": self.key}
        switch(self.store, release.name, release, expected=number - 1, keys=[self.key.public], **facts)

    def run(self, *arguments: str, says: str | None = None) -> tuple[int, str]:
        app = typer.Typer()
        recall_cli.register(app)
        deploy_cli.register(app)
        result = CliRunner().invoke(app, list(arguments), input=says)
        if isinstance(result.exception, RecstillError):
            raise result.exception
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.output

    def recall(self, *arguments: str) -> dict[str, Any]:
        status, printed = self.run("recall", *arguments, "--reason", "it leaks", "--yes", "--json")
        assert status == 0
        return dict(json.loads(printed))


def inherits(document: Mapping[str, Any]) -> set[str]:
    return {f"{one['name']}@v{one['version']}" for one in document["inherits"]}


@pytest.fixture
def shops(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Shops:
    for name in ("RECSTILL_STORE", "PREFECT_API_URL", "RECSTILL_SIGNING_KEY", "RECSTILL_TRUSTED_KEYS"):
        monkeypatch.delenv(name, raising=False)
    made = Shops(tmp_path / "shops", package)
    monkeypatch.chdir(made.root)
    return made


def test_a_data_set_of_a_revision_takes_what_came_of_it_in_every_scenario(shops: Shops) -> None:
    shops.release("shop", 1, "may", "first")
    git(shops.root, "tag", "spring")
    shops.release("shop", 2, "june", "second")
    shops.release("news", 1, "may", "third")
    document = shops.recall("shop@spring")
    assert inherits(document) == {"shop@v1", "news@v1"}
    assert document["kind"] == "dataset" and {sha("may"), md5("may")} <= set(document["digests"])
    assert sha("june") not in document["digests"] and sha("second") not in document["digests"]
    with pytest.raises(DataError, match="is no revision"):
        shops.recall("shop@winter")
    with pytest.raises(DataError, match="records no data set of 'toys'"):
        shops.recall("toys@spring")


@pytest.mark.parametrize("attested", [True, False])
def test_a_data_set_that_no_release_knows_is_reached_by_its_statement_or_that_is_told(
    shops: Shops, attested: bool
) -> None:
    shops.commit("shop", "may", "first")
    if attested:
        shops.attest("order@shop", {"dataset": sha("may")})
    document = shops.recall("shop@main")
    assert inherits(document) == set()
    assert (sha("may") in document["digests"]) is attested
    assert ("known by its MD5 alone" in " ".join(document["notes"])) is not attested
    later = shops.release("news", 1, "may", "other")
    found = recalls(store_of(shops.root), trusted(shops.root))
    assert bool([one for one in found if later.lineage["dataset"] in one.digests]) is attested


def test_a_teacher_takes_those_that_started_from_it_and_their_students(shops: Shops) -> None:
    shops.release("shop", 1, "may", "first")
    shops.release("shop", 2, "june", "second", warm="first")
    shops.release("shop", 3, "july", "third", warm="second")
    shops.release("shop", 4, "july", "anew")
    document = shops.recall(sha("first")[:12])
    assert document["kind"] == "teacher" and inherits(document) == {"shop@v1", "shop@v2", "shop@v3"}
    assert sha("anew") not in document["digests"]


def test_recalled_events_reach_teachers_that_started_from_one_that_saw_them(shops: Shops) -> None:
    shops.release("shop", 1, "may", "first")
    shops.release("shop", 2, "june", "second", warm="first")
    assert inherits(shops.recall(md5("events may"))) == {"shop@v1", "shop@v2"}


def test_a_version_takes_itself_alone_and_its_bytes_elsewhere(shops: Shops) -> None:
    first = shops.release("shop", 1, "may", "first")
    shops.release("shop", 2, "may", "second")
    document = shops.recall("shop@v1")
    assert inherits(document) == {"shop@v1"} and set(document["digests"]) == {first.attestation, first.package}
    with pytest.raises(DataError, match=r"of shop there is: v1, v2"):
        shops.recall("shop@v3")


def test_digests_are_found_by_their_beginning_when_that_is_enough(shops: Shops) -> None:
    shops.release("shop", 1, "may", "first")
    assert shops.recall(f"sha256:{sha('may')[:20]}")["kind"] == "dataset"
    for text, words in (("0" * 8, "begins with"), ("xyz", "is no version"), ("abc1234", "is no version")):
        with pytest.raises(DataError, match=words):
            shops.recall(text)
    document = shops.recall("0" * 64)
    assert document["kind"] == "unknown" and "nothing here knows this digest" in document["notes"][0]


def test_nothing_is_written_without_a_yes_and_a_reason(shops: Shops) -> None:
    shops.live(shops.release("shop", 1, "may", "first"))
    status, printed = shops.run("recall", "shop@main", "--reason", "bad", says="n\n")
    assert status == 0 and "nothing was recalled" in printed
    assert "shop@v1" in printed and "live" in printed and "dataset" in printed
    with pytest.raises(DataError, match="needs a reason"):
        shops.run("recall", "shop@main")
    with pytest.raises(RecstillError, match="nobody is asked"):
        shops.run("recall", "shop@main", "--reason", "bad", "--json")
    assert every_recall(shops.store, trusted(shops.root)) == []
    status, printed = shops.run("recall", "shop@main", "--reason", "bad", says="y\n")
    assert status == 0 and "shop@v1 is live and recalled" in printed
    status, printed = shops.run("recall", "shop@main", "--reason", "bad", "--yes")
    assert status == 0 and "is recalled already: recall 1" in printed
    assert len(every_recall(shops.store, trusted(shops.root))) == 1


def test_recalls_are_listed_with_a_status_for_scripts_and_lifted_by_name_digest_or_number(shops: Shops) -> None:
    shops.release("shop", 1, "may", "first")
    assert shops.run("recall")[0] == 0
    shops.recall("shop@main")
    shops.recall("shop@v1")
    status, printed = shops.run("recall", "--json")
    assert status == FOUND
    assert [(one["number"], one["inherits"][0]["version"]) for one in json.loads(printed)["recalls"]] == [
        (1, 1),
        (2, 1),
    ]
    assert "recall 2 of release shop@v1 by Tess Ter" in shops.run("recall")[1]
    for target in ("2", "shop@main"):
        shops.run("recall", target, "--lift", "--reason", "it was not", "--yes")
    assert shops.run("recall")[0] == 0
    assert [one.lifts for one in every_recall(shops.store, trusted(shops.root))] == [None, None, 2, 1]
    with pytest.raises(DataError, match="no recall of shop@v1 is in force"):
        shops.run("recall", "shop@v1", "--lift", "--reason", "again", "--yes")


def test_deploying_and_going_back_refuse_what_is_recalled_and_versions_show_it(shops: Shops) -> None:
    first, second = shops.release("shop", 1, "may", "first"), shops.release("shop", 2, "june", "second")
    third = shops.release("shop", 3, "july", "third")
    for number, release in enumerate((first, second, third), start=1):
        shops.live(release, number)
    shops.recall(sha("june"))
    with pytest.raises(RecalledError, match=r"shop@v2 is recalled: recall 1 of dataset .* it leaks"):
        bring_live(shops.root, Order("shop", 2), lambda line: None)
    with pytest.raises(RecalledError, match="is recalled") as told:
        roll_back(shops.root, "shop", None, who="Tess", why="", say=lambda line: None)
    assert "v1 (--to)" in told.value.remedy
    rows = {row["version"]: row for row in version_rows(shops.root, "shop")[0]}
    assert [bool(rows[version]["recalled"]) for version in (1, 2, 3)] == [False, True, False]
    assert rows[2]["state"] == "before" and "it leaks" in rows[2]["recalled"][0]
    printed = shops.run("versions", "shop")[1]
    assert "before, recalled" in printed and "v2 is recalled: recall 1 of dataset" in printed
    assert roll_back(shops.root, "shop", 1, who="Tess", why="", say=lambda line: None).recalls == 1
    shops.run("recall", "1", "--lift", "--reason", "it does not", "--yes")
    assert roll_back(shops.root, "shop", 2, who="Tess", why="", say=lambda line: None).version == 2


def test_retraining_starts_from_no_recalled_teacher_and_not_on_recalled_data(shops: Shops) -> None:
    first = shops.release("shop", 1, "may", "first")
    shops.store.put(f"teachers/{sha('first')}/manifest.json", b"{}", hashlib.sha256(b"{}").hexdigest())
    assert _warm_start(shops.store, first, [], lambda line: None) == sha("first")
    shops.recall("shop@main")
    found, said = recalls(shops.store, trusted(shops.root)), list[str]()
    assert _warm_start(shops.store, first, found, said.append) is None
    assert "starts anew: v1 is recalled (recall 1 of dataset" in said[0]
    with pytest.raises(RecalledError, match="what shop would be trained on is recalled"):
        _refuse_recalled_data(shops.root, "shop", [], [{"digest": sha("may")}], found)
    _refuse_recalled_data(shops.root, "shop", [], [{"digest": sha("june")}], found)


def test_a_release_that_cannot_be_read_is_told_and_stops_no_recall(shops: Shops) -> None:
    shops.release("shop", 1, "may", "first")
    shops.release("news", 1, "may", "second")
    place = shops.root / ".recstill/store/releases/news/v1/attestation.dsse.json"
    place.chmod(0o644)
    place.write_bytes(b"{}")
    document = shops.recall("shop@v1")
    assert inherits(document) == {"shop@v1"} and "whether news@v1 inherits is not known" in document["notes"][0]
    assert read_release(shops.store, "shop", 1, trusted(shops.root)).version == 1
