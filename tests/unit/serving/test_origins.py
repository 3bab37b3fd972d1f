"""What a recall may name of a release: also what only the statements of its stages know."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.errors import IntegrityError
from components.provenance.signing import SigningKey, signing_key
from components.provenance.stage_statement import FileDigests, StageStatement, bundle, signed
from components.serving.origins import origin_ids
from components.serving.package_folder import BUNDLE
from components.serving.releases import Release, publish
from components.storage.folder_store import FolderStore

EVENTS, TRAIN, WARM, LABELS, CODE = "1" * 32, "2" * 64, "3" * 64, "4" * 64, "5" * 32


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path / "keys")


def released(store: FolderStore, package: Path, key: SigningKey, lines: bytes | None) -> Release:
    facts = {"name": "tiny", "version": 1, "commit": "c" * 40, "created": "2026-01-01T00:00:00+00:00"}
    beside = {} if lines is None else {BUNDLE: lines}
    return publish(store, package, {"passed": True}, **facts, key=key, beside=beside)  # type: ignore[arg-type]


def statement(key: SigningKey) -> StageStatement:
    made = StageStatement(
        scenario="tiny",
        stage="teach",
        entry="0" * 64,
        subjects={"artifacts/tiny/teacher/weights": FileDigests("6" * 64, "7" * 32, 3)},
        outputs={"artifacts/tiny/teacher": "8" * 32 + ".dir"},
        inputs={"artifacts/tiny/events.parquet": EVENTS},
        code={"components/teach.py": CODE},
        params={"scenarios.tiny.teacher": {"warm_start": WARM, "width": 8}},
        cmd="teach",
        commit="c" * 40,
        dirty=False,
        who="Tess",
        digests={"soft_labels": LABELS},
        input_sha256={"artifacts/tiny/events.parquet": TRAIN},
    )
    return signed(made, key)


def test_what_only_statements_know_is_found(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = released(store, package, key, bundle([statement(key)]))
    ids = origin_ids(store, release)
    assert {EVENTS, TRAIN, WARM, LABELS, CODE, "6" * 64, "7" * 32, "8" * 32} <= ids
    assert {release.package, release.attestation, *release.lineage.values(), *release.files.values()} <= ids


def test_a_release_without_statements_has_its_lineage(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = released(store, package, key, None)
    assert origin_ids(store, release) >= set(release.lineage.values()) and EVENTS not in origin_ids(store, release)


@pytest.mark.parametrize("lines", [b"{}\n", b"no json\n", b'{"payload": "e30="}\n'])
def test_statements_that_cannot_be_read_are_no_silence(
    store: FolderStore, package: Path, key: SigningKey, lines: bytes
) -> None:
    with pytest.raises(IntegrityError, match="not of the form"):
        origin_ids(store, released(store, package, key, lines))


def test_statements_that_were_changed_are_told(store: FolderStore, package: Path, key: SigningKey) -> None:
    release = released(store, package, key, bundle([statement(key)]))
    path = store.local_file(release.key(BUNDLE))
    assert path is not None
    path.write_bytes(b"")
    with pytest.raises(IntegrityError):
        origin_ids(store, release)
