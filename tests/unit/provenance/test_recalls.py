from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, IntegrityError
from components.provenance.recalls import (
    every_recall,
    put_recall,
    recall_log,
    recall_state,
    recalled_by,
    recalls,
)
from components.provenance.signed_log import LogConflictError
from components.provenance.signing import SigningKey, signing_key
from components.storage.folder_store import FolderStore

DATASET, TEACHER, PACKAGE, ATTESTATION, MODEL = ("a" * 64, "b" * 64, "c" * 64, "d" * 64, "e" * 64)


@dataclass(frozen=True)
class Made:
    """What recalls see of a release."""

    package: str = PACKAGE
    attestation: str = ATTESTATION
    lineage: Mapping[str, str] = field(default_factory=lambda: {"dataset": DATASET, "teacher": TEACHER})
    files: Mapping[str, str] = field(default_factory=lambda: {"model.onnx": MODEL})


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return signing_key(tmp_path_factory.mktemp("keys"))


def put(store: FolderStore, key: SigningKey, *digests: str, expected: int = 0, **changes: Any) -> int:
    facts: dict[str, Any] = {"kind": "dataset", "name": "tiny@main", "reason": "sold twice", "who": "Ann"}
    return put_recall(store, digests=digests, **(facts | changes), expected=expected, key=key).number


@pytest.mark.parametrize("digest", [DATASET, TEACHER, PACKAGE, ATTESTATION, MODEL, f"sha256:{DATASET.upper()}"])
def test_a_release_inherits_what_names_anything_that_it_came_from(
    store: FolderStore, key: SigningKey, digest: str
) -> None:
    put(store, key, "f" * 64, digest)
    assert [one.reason for one in recalled_by(Made(), recalls(store, [key.public]))] == ["sold twice"]


def test_a_release_of_other_content_inherits_nothing(store: FolderStore, key: SigningKey) -> None:
    put(store, key, "f" * 64, "0" * 32)
    found = recalls(store, [key.public])
    assert len(found) == 1 and recalled_by(Made(), found) == []
    assert recalled_by(Made(), found, also=["0" * 32 + ".dir"]) == found, "an MD5 that its statements name"


def test_a_recall_that_was_lifted_is_not_in_force_and_stays_in_the_log(store: FolderStore, key: SigningKey) -> None:
    put(store, key, DATASET)
    put(store, key, TEACHER, expected=1, kind="teacher")
    put(store, key, DATASET, expected=2, lifts=1, reason="it was not")
    state = recall_state(store, [key.public])
    assert [one.number for one in state.recalls] == [2] and state.number == 3
    assert [(one.number, one.lifts) for one in every_recall(store, [key.public])] == [(1, None), (2, None), (3, 1)]
    put(store, key, DATASET, expected=3, reason="it was after all")
    assert [one.number for one in recalls(store, [key.public])] == [2, 4]


def test_a_lift_cannot_be_written_ahead(store: FolderStore, key: SigningKey) -> None:
    put(store, key, DATASET, lifts=2)
    put(store, key, DATASET, expected=1)
    assert [one.number for one in recalls(store, [key.public])] == [2]


@pytest.mark.parametrize(
    ("digests", "reason", "words"),
    [((), "x", "nothing"), (("xyz",), "x", "'xyz' is none"), ((DATASET,), "  ", "needs a reason")],
)
def test_what_is_no_recall_is_refused(
    store: FolderStore, key: SigningKey, digests: tuple[str, ...], reason: str, words: str
) -> None:
    with pytest.raises(DataError, match=words):
        put(store, key, *digests, reason=reason)
    assert recall_log(store).numbers() == []


def test_of_two_at_once_one_is_told(store: FolderStore, key: SigningKey) -> None:
    put(store, key, DATASET)
    with pytest.raises(LogConflictError):
        put(store, key, TEACHER)


def test_recalls_that_nobody_trusted_has_signed_are_no_silence(
    store: FolderStore, key: SigningKey, tmp_path: Path
) -> None:
    put(store, signing_key(tmp_path / "others"), DATASET)
    with pytest.raises(IntegrityError, match="no trusted key has signed entry 1 of recalls"):
        recalls(store, [key.public])


def test_a_signed_entry_of_another_form_is_told(store: FolderStore, key: SigningKey) -> None:
    recall_log(store).append({"kind": "dataset"}, expected=0, key=key)
    with pytest.raises(IntegrityError, match="not of the form"):
        recalls(store, [key.public])
