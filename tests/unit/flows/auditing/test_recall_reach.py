"""A recall reaches the same versions wherever somebody asks: impact, trace, history, deployment, service, the audit."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from pathlib import Path

import pytest

from components.provenance.recalls import RecalledError, put_recall, recall_state
from components.serving.origins import origin_ids
from components.serving.releases import names, read_release, versions
from flows.auditing.impact import impact
from flows.auditing.lineage import Lineage
from flows.auditing.model_history import history_of
from flows.auditing.recalled import require_not_recalled
from flows.auditing.recalling import every_release, heirs, target_of
from flows.auditing.reporting import audit_report
from flows.auditing.resolving import resolve
from flows.repository import store_of
from flows.trust import signer, trusted
from tests.benchmarks.audit.history import History, digest

SOURCE = hashlib.md5(b"data/orders.csv, written 0 times\n").hexdigest()
MODULE = hashlib.md5(b"components/stages/prune.py, written 0 times\n").hexdigest()


def recalled(root: Path, text: str) -> frozenset[str]:
    """Recall something, and say which versions the command names."""
    store = store_of(root)
    releases = every_release(root, store).known
    target = target_of(root, store, text, releases)
    put_recall(
        store,
        digests=target.digests,
        kind=target.kind,
        name=text,
        reason="bad",
        who="Tess",
        expected=recall_state(store, trusted(root)).number,
        key=signer(root, ""),
    )
    return frozenset(str(one.release) for one in heirs(releases, target.digests))


def told(root: Path, text: str) -> dict[str, Set[str]]:
    """Which versions are recalled, by whom one asks."""
    store, lineage = store_of(root), Lineage(root)
    recalls = recall_state(store, trusted(root)).recalls
    found: dict[str, set[str]] = {one: set() for one in ("deploy", "service", "trace", "history")}
    for name in names(store):
        for number in versions(store, name):
            release = read_release(store, name, number, trusted(root))
            try:
                require_not_recalled(root, store, release, None)
            except RecalledError:
                found["deploy"].add(str(release))
            if any(one.digests & origin_ids(store, release) for one in recalls):
                found["service"].add(str(release))
            if lineage.trace(resolve(lineage, str(release))).recalls:
                found["trace"].add(str(release))
        found["history"] |= {f"{name}@v{one.version}" for one in history_of(root, name).events if one.kind == "recall"}
    found["impact"] = {str(one) for one in impact(lineage, resolve(lineage, text)).versions if one.recalls}
    return dict(found)


@pytest.mark.parametrize(
    "text",
    ["shop@shop@v2.0.0", digest("shop", 3, "teacher"), SOURCE, "shop@v2"],
    ids=["data set of a revision", "teacher", "source file", "version"],
)
def test_everybody_who_is_asked_names_the_same_versions(history: History, text: str) -> None:
    root = history.root
    named = recalled(root, text)
    answers = told(root, text)
    assert named
    assert all(answer == named for answer in answers.values()), answers
    lineage = Lineage(root)
    descends = {str(one) for one in impact(lineage, resolve(lineage, text)).versions}
    assert named == descends


def test_a_module_of_code_can_be_recalled_and_the_audit_shows_what_ran_it(history: History) -> None:
    named = recalled(history.root, MODULE)
    assert len(named) == history.versions
    assert {str(one) for one in audit_report(history.root).versions if one.recalls} == named
    lineage = Lineage(history.root)
    assert lineage.trace(resolve(lineage, "news@v1")).recalls
