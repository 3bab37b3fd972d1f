from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from components.provenance.recalls import put_recall
from components.storage.folder_store import FolderStore
from flows.auditing.impact import Impact, impact
from flows.auditing.lineage import Lineage
from flows.auditing.resolving import resolve
from flows.runs import RunRecord, write_run
from tests.benchmarks.audit.history import History, digest


def of(root: Path, text: str) -> Impact:
    lineage = Lineage(root)
    return impact(lineage, resolve(lineage, text))


def versions(found: Impact) -> dict[str, str]:
    return {str(one): one.state for one in found.versions}


def test_a_data_set_reaches_its_versions_and_those_that_started_warm_from_it_live_ones_first(history: History) -> None:
    found = of(history.root, digest("shop", 2, "dataset"))
    assert [str(one) for one in found.versions] == ["shop@v4", "shop@v3", "shop@v2"]
    assert set(found.versions[-1].through) >= {"dataset", "teacher", "student", "package"}
    assert "dataset" not in found.versions[0].through and "teacher" in found.versions[0].through
    first = of(history.root, digest("shop", 1, "dataset"))
    assert versions(first) == {
        "shop@v1": "live",
        "shop@v4": "registered",
        "shop@v3": "registered",
        "shop@v2": "registered",
    }
    assert next(iter(versions(first))) == "shop@v1"
    assert not any(str(one).startswith("news") for one in first.versions) and not first.artifacts


def test_a_student_reaches_its_own_version_alone_and_a_package_itself(history: History) -> None:
    for text in (digest("shop", 2, "student"), "shop@v2", digest("shop", 2, "pruned")):
        assert list(versions(of(history.root, text))) == ["shop@v2"]


def test_a_source_and_a_module_reach_whatever_read_or_ran_them(history: History, tmp_path: Path) -> None:
    for path in ("data/orders.csv", "components/stages/prune.py"):
        (tmp_path / "copy").write_bytes(f"{path}, written 0 times\n".encode())
        found = of(history.root, str(tmp_path / "copy"))
        assert len(found.versions) == history.versions, path


def test_without_git_the_signed_statements_and_releases_tell_the_same(history: History) -> None:
    before = of(history.root, digest("shop", 2, "dataset"))
    shutil.rmtree(history.root / ".git")
    after = of(history.root, digest("shop", 2, "dataset"))
    assert versions(after) == versions(before)


def test_what_is_in_no_version_is_listed_with_where_it_is(history: History) -> None:
    shutil.rmtree(history.root / ".recstill/store/releases/news/v3")
    lock = next(lock for lock in Lineage(history.root).history.locks if "shop@v2" in lock.versions)
    text = lock.content.decode()
    made = next(run for run in lock.stages if run.address == "distill@shop").outputs["artifacts/shop/student"]
    head, tail = text.split("  distill@shop:\n")
    own, rest = tail.split("\n  evaluate@shop:\n")
    text = f"{head}  distill@shop:\n{own.replace(made, 'e' * 32 + '.dir')}\n  evaluate@shop:\n{rest}"
    (history.root / "dvc.lock").write_text(text)
    found = of(history.root, digest("shop", 2, "dataset"))
    assert [(one.kind, one.md5, one.where) for one in found.artifacts] == [
        ("student", "e" * 32 + ".dir", [str(history.root)])
    ]
    missing = of(history.root, digest("news", 3, "teacher"))
    assert versions(missing)["news@v3"] == "missing"


def test_digests_of_all_that_descends_are_given_for_a_recall(history: History) -> None:
    found = of(history.root, digest("shop", 3, "teacher"))
    expected = {digest("shop", version, kind) for version in (3, 4) for kind in ("teacher", "student", "soft_labels")}
    assert expected <= found.digests
    assert {one.package for one in found.versions} <= found.digests
    assert digest("shop", 3, "dataset") not in found.digests
    model = history.content(4, "artifacts/shop/events.parquet")
    assert hashlib.md5(model).hexdigest() not in found.digests


def test_recalls_and_refused_runs_are_shown(history: History) -> None:
    store = FolderStore(history.root / ".recstill" / "store")
    bad = {"digests": [digest("shop", 4, "teacher")], "kind": "teacher", "name": "shop", "reason": "diverged"}
    put_recall(store, **bad, who="Tess", expected=0, key=history.key)
    verdict = {"passed": False, "reasons": ["worse"]}
    dataset = digest("shop", 2, "dataset")
    write_run(store, RunRecord("shop", "a" * 64, "refused", dataset, "1" * 40, (), 1, verdict), history.key)
    write_run(store, RunRecord("shop", "b" * 64, "refused", "0" * 64, "1" * 40, (), 1, verdict), history.key)
    found = of(history.root, dataset)
    assert [[recall.reason for recall in one.recalls] for one in found.versions] == [["diverged"], [], []]
    assert found.refused == [("shop", "a" * 64)]
    json.dumps(found.record())


def test_a_forged_attestation_is_listed_and_said_to_be_untrusted(history: History) -> None:
    file = history.root / ".recstill/store/releases/shop/v3/attestation.dsse.json"
    forged = json.loads(file.read_bytes())
    forged["signatures"][0]["sig"] = "AAAA" + forged["signatures"][0]["sig"][4:]
    file.write_text(json.dumps(forged))
    found = {str(one): one.problem for one in of(history.root, digest("shop", 3, "dataset")).versions}
    assert "no trusted key" in found["shop@v3"] and not found["shop@v4"]


@pytest.mark.parametrize(
    "command", [["trace", "shop@v2"], ["impact", "shop@v2"], ["history", "shop"], ["diff", "shop@v1", "shop@v1"]]
)
def test_each_command_prints_one_json_document_and_ends_well(
    history: History, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.cli import app

    app([*command, "--json"], standalone_mode=False)
    captured = capsys.readouterr()
    assert isinstance(json.loads(captured.out), dict)
