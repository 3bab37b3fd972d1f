from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from components.errors import IntegrityError
from components.storage.folder_store import FolderStore
from flows.version_claims import claim_key, claim_version, claimed_version

KEY, OTHER = "a" * 64, "b" * 64


def test_a_run_keeps_the_version_that_it_has_claimed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert claimed_version(store, "shop", KEY) is None
    assert claim_version(store, "shop", KEY, 3) == 3 == claimed_version(store, "shop", KEY)
    assert claim_version(store, "shop", KEY, 7) == 3
    assert claim_version(store, "toys", KEY, 1) == 1, "names count on their own"


def test_a_number_that_another_run_has_claimed_is_left_to_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert [claim_version(store, "shop", key, 2) for key in (KEY, OTHER)] == [2, 3]


def test_a_kill_between_number_and_claim_wastes_no_number(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    claim_version(store, "shop", KEY, 2)
    store.delete(claim_key("shop", KEY))
    assert claim_version(store, "shop", KEY, 2) == 2


@pytest.mark.parametrize("turn", range(20))
def test_machines_that_race_with_one_run_agree_whatever_tags_each_of_them_sees(tmp_path: Path, turn: int) -> None:
    start = Barrier(4)

    def claim(first_free: int) -> int:
        store = FolderStore(tmp_path)
        start.wait(timeout=30)
        return claim_version(store, "shop", KEY, first_free)

    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(claim, (2, 3, 2, 5)))
    assert found == {claimed_version(FolderStore(tmp_path), "shop", KEY)}


@pytest.mark.parametrize("turn", range(20))
def test_runs_that_race_get_a_version_each(tmp_path: Path, turn: int) -> None:
    start = Barrier(4)

    def claim(key: str) -> int:
        start.wait(timeout=30)
        return claim_version(FolderStore(tmp_path), "shop", key, 1)

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(claim, (KEY, OTHER, KEY, "c" * 64)))
    assert sorted(set(found)) == [1, 2, 3] and found[0] == found[2]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"format": 1, "key": "a", "version": 0}', b'{"format": 2, "key": "a", "version": 1}']
)
def test_a_damaged_claim_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / claim_key("shop", KEY)
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match="no claim of a version"):
        claim_version(FolderStore(tmp_path), "shop", KEY, 1)


def test_the_claim_of_another_run_in_its_place_is_not_taken(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    claim_version(store, "shop", OTHER, 1)
    (tmp_path / claim_key("shop", OTHER)).rename(tmp_path / claim_key("shop", KEY))
    with pytest.raises(IntegrityError):
        claimed_version(store, "shop", KEY)
