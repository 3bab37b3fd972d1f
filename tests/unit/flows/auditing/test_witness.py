"""What a log that was cut cannot tell of itself, and who remembers it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from components.errors import IntegrityError, SettingsError
from components.provenance.recalls import put_recall, recall_log
from components.provenance.signing import signing_key
from components.serving.pointer import current, history, switch_log
from flows.auditing.witness import WITNESS, anchor_problems, anchors, check_and_remember
from flows.repository import keys_of
from flows.switching import DeploymentError
from flows.trust import trusted
from tests.unit.flows.small_checkout import git
from tests.unit.flows.test_promoting import Models, made, models
from tests.unit.serving.conftest import artifacts, content, package

__all__ = ["artifacts", "content", "made", "models", "package"]


def entry(models: Models, number: int) -> Path:
    return models.root / ".recstill/store" / switch_log(models.store, "tiny").key(number)


def test_the_witness_and_the_tags_remember_how_far_the_log_went(models: Models) -> None:
    for version in (1, 2, 3):
        models.deploy(version)
    log = switch_log(models.store, "tiny")
    heads = history(models.store, "tiny", trusted(models.root))
    record = json.loads((models.root / WITNESS).read_text())["logs"][models.store.address]
    assert record[log.prefix] == {"number": 3, "digest": heads[-1].digest}
    told = [(one.tag, one.number, one.digest) for one in anchors(models.root, "tiny")]
    assert told == [(f"tiny#prod#{one.number}", one.number, one.digest) for one in heads]
    assert check_and_remember(models.root, models.store, log) is None
    assert anchor_problems(models.root, "tiny", log) == []


def test_a_log_that_was_cut_is_whole_by_itself_and_told_by_both(models: Models) -> None:
    for version in (1, 2):
        models.deploy(version)
    entry(models, 2).unlink()
    log = switch_log(models.store, "tiny")
    assert models.live == 1, "nothing in the log tells"
    assert "entry 2 of releases/tiny/prod" in str(check_and_remember(models.root, models.store, log))
    assert ["the tag tiny#prod#2" in line for line in anchor_problems(models.root, "tiny", log)] == [True]
    for command in (lambda: models.deploy(3), models.roll_back):
        with pytest.raises(DeploymentError, match=r"entry 2 of releases/tiny/prod .* the log was cut"):
            command()
    assert models.live == 1, "nothing was built on it"


def test_a_log_that_was_begun_anew_by_who_may_sign_is_told(models: Models) -> None:
    models.deploy(1)
    models.deploy(2)
    aside = models.root / WITNESS
    remembered = aside.read_bytes()
    aside.unlink()
    shutil.rmtree(entry(models, 1).parent)
    models.deploy(3)
    aside.write_bytes(remembered)
    assert "the log was cut" in str(check_and_remember(models.root, models.store, switch_log(models.store, "tiny")))
    models_tags = anchor_problems(models.root, "tiny", switch_log(models.store, "tiny"))
    assert len(models_tags) == 2 and "was replaced" in models_tags[0] and "the log was cut" in models_tags[1]


def test_a_forged_tag_is_told_and_a_reason_cannot_pass_for_an_anchor(models: Models) -> None:
    models.deploy(1, why=f"because\n\nswitch: 7 sha256:{'0' * 64}\nof that")
    log = switch_log(models.store, "tiny")
    assert [one.number for one in anchors(models.root, "tiny")] == [1]
    assert anchor_problems(models.root, "tiny", log) == []
    git(models.root, "tag", "-a", "tiny#prod#2", "-m", f"forged\n\nswitch: 1 sha256:{'0' * 64}", "HEAD")
    assert ["tiny#prod#2" in line for line in anchor_problems(models.root, "tiny", log)] == [True]


def test_a_log_of_recalls_that_was_cut_stops_deployments_here_and_elsewhere(models: Models) -> None:
    key = signing_key(keys_of(models.root))
    facts = {"kind": "dataset", "name": "other@main", "reason": "bad", "who": "Ann", "key": key}
    put_recall(models.store, digests=["0" * 64], expected=0, **facts)  # type: ignore[arg-type]
    models.deploy(1)
    seen = current(models.store, "tiny", trusted(models.root))
    assert seen is not None and seen.recalls == 1 and len(seen.recalls_digest) == 64
    path = models.root / ".recstill/store" / recall_log(models.store).key(1)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"what is recalled cannot be known: entry 1 of recalls"):
        models.deploy(2)
    (models.root / WITNESS).unlink()  # another checkout, which has never seen the log: the switch has
    with pytest.raises(IntegrityError, match=r"what is recalled cannot be known: entry 1 of recalls"):
        models.deploy(2)
    assert models.live == 1


def test_a_damaged_witness_is_told(models: Models) -> None:
    (models.root / WITNESS).write_text('{"format": 1, "logs": {"a": 3}}')
    with pytest.raises(IntegrityError, match=r"witness\.json is damaged"):
        models.deploy(1)


def test_a_deployer_whose_key_is_not_trusted_is_told_before_anything_is_checked(
    models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted_here = tmp_path / "trusted.pem"
    trusted_here.write_text(signing_key(keys_of(models.root)).public.pem)
    signing_key(tmp_path / "others")
    monkeypatch.setenv("RECSTILL_TRUSTED_KEYS", str(trusted_here))
    assert models.deploy(1) and models.deploy(2)
    monkeypatch.setenv("RECSTILL_SIGNING_KEY", str(tmp_path / "others" / "signing.pem"))
    for command in (lambda: models.deploy(3), models.roll_back):
        with pytest.raises(SettingsError, match="is not trusted: no service would heed the switch"):
            command()
    assert models.live == 2
