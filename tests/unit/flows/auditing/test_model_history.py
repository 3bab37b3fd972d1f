from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from components.errors import SettingsError
from components.provenance.recalls import put_recall
from components.provenance.signing import trusted_keys
from components.serving import pointer
from components.serving.releases import read_release
from components.storage.folder_store import FolderStore
from flows.auditing.differences import compare
from flows.auditing.lineage import Lineage
from flows.auditing.model_history import history_of, parsed_moment
from flows.auditing.resolving import resolve
from flows.runs import RunRecord, write_run
from tests.benchmarks.audit.history import History, digest


class Clock:
    """Days, one after the other, of May 2026."""

    def __init__(self) -> None:
        self.day = 0

    def now(self, zone: object) -> datetime:
        self.day += 1
        return datetime(2026, 5, self.day, 12, tzinfo=UTC)


@pytest.fixture
def lived(history: History, monkeypatch: pytest.MonkeyPatch) -> History:
    """shop: v2 live on the 1st of May, v3 on the 2nd, back to v2 on the 3rd."""
    clock = Clock()
    monkeypatch.setattr(pointer, "datetime", clock)
    store, keys = FolderStore(history.root / ".recstill" / "store"), (history.key.public,)
    for number, (version, kind, why) in enumerate([(2, "deploy", ""), (3, "deploy", "newer"), (2, "rollback", "slow")]):
        release = read_release(store, "shop", version, keys)
        said = {"expected": number + 1, "who": "Tess", "why": why, "key": history.key, "keys": keys}
        pointer.switch(store, "shop", release, kind=kind, **said)  # type: ignore[arg-type]
    return history


def test_all_that_happened_is_told_in_its_order_with_who_and_why(lived: History) -> None:
    found = history_of(lived.root, "shop")
    told = [(one.kind, one.version, one.who, one.why) for one in found.events if one.at >= "2026-05-01"]
    assert told[:3] == [("deploy", 2, "Tess", ""), ("deploy", 3, "Tess", "newer"), ("rollback", 2, "Tess", "slow")]
    registered = [one for one in found.events if one.kind == "registered"]
    assert [one.version for one in registered] == [1, 2, 3, 4] and {one.who for one in registered} == {"Tess Ter"}
    assert registered[0].gate["challenger"] == {"ndcg10": 0.1}


@pytest.mark.parametrize(
    ("at", "version"),
    [("2026-05-01T11:59:59Z", None), ("2026-05-01", 2), ("2026-05-02T12:00:00+00:00", 3), ("2026-05-03", 2)],
)
def test_what_was_live_at_a_time_is_the_newest_switch_before_it(lived: History, at: str, version: int | None) -> None:
    live = history_of(lived.root, "shop").live_at(parsed_moment(at))
    assert (live.version if live else None) == version


def test_refused_runs_recalls_and_lost_releases_are_part_of_it(lived: History) -> None:
    store = FolderStore(lived.root / ".recstill" / "store")
    verdict = {"passed": False, "reasons": ["quality: worse"], "challenger": {"ndcg10": 0.05}}
    write_run(store, RunRecord("shop", "a" * 64, "refused", "d" * 64, "1" * 40, (), 1, verdict), lived.key)
    bad = {"digests": [digest("shop", 3, "teacher")], "kind": "teacher", "name": "shop", "reason": "diverged"}
    put_recall(store, **bad, who="Tess", expected=0, key=lived.key)
    (lived.root / ".recstill/store/releases/shop/v4/attestation.dsse.json").unlink()
    events = history_of(lived.root, "shop").events
    assert [one.why for one in events if one.kind == "refused"] == ["quality: worse"]
    assert [(one.version, one.why) for one in events if one.kind == "recall"] == [(3, "teacher shop: diverged")]
    assert [one.problem for one in events if one.version == 4] == ["the release of shop@v4 is not in the store"]


def test_a_damaged_log_is_told_and_hides_nothing_else(lived: History) -> None:
    log = lived.root / ".recstill/store/releases/shop/prod"
    file = sorted(log.iterdir())[1]
    document = json.loads(file.read_bytes())
    document["signatures"][0]["sig"] = "AAAA" + document["signatures"][0]["sig"][4:]
    file.write_text(json.dumps(document))
    found = history_of(lived.root, "shop")
    assert any("what was live cannot be told" in note for note in found.notes)
    assert [one.kind for one in found.events] == ["registered"] * 4


def test_an_unknown_model_and_what_is_no_date_are_refused(history: History) -> None:
    with pytest.raises(SettingsError, match="nothing is known of a model"):
        history_of(history.root, "shoo")
    with pytest.raises(SettingsError, match="no date"):
        parsed_moment("yesterday")
    assert trusted_keys(history.root / ".recstill" / "keys")


def test_a_difference_names_parameters_code_bytes_and_lineage_and_equal_ones_have_none(history: History) -> None:
    lineage = Lineage(history.root)
    same = compare(lineage, resolve(lineage, "shop@v2"), resolve(lineage, "shop@v2"))
    assert same.differences == []
    found = compare(lineage, resolve(lineage, "shop@v1"), resolve(lineage, digest("shop", 2, "pruned")))
    by = {(one.part, one.name): (one.before, one.after) for one in found.differences}
    assert by["parameters", "teacher.warm_start"] == (None, digest("shop", 1, "teacher"))
    assert by["lineage", "teacher"] == (digest("shop", 1, "teacher"), digest("shop", 2, "teacher"))
    assert by["parameters", "source.as_of"][0] < by["parameters", "source.as_of"][1]
    assert by["code", "components/stages/package.py"][1] is None
