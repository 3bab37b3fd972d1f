from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import IntegrityError
from components.provenance.signed_log import LogConflictError, SignedLog, anchor_problem, newest_of
from components.provenance.signing import SigningKey, sign, signing_key
from components.storage.folder_store import FolderStore

TYPE = "application/vnd.recstill.test+json"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return signing_key(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def log(tmp_path: Path) -> SignedLog:
    return SignedLog(FolderStore(tmp_path / "store"), "some/log", TYPE)


def filled(log: SignedLog, key: SigningKey, count: int = 4) -> SignedLog:
    for number in range(count):
        log.append({"say": f"line {number + 1}"}, expected=number, key=key)
    return log


def path_of(log: SignedLog, number: int) -> Path:
    return Path(log.store.address.removeprefix("file://")) / log.key(number)


def test_what_is_appended_is_read_in_order_and_each_entry_names_the_one_before(log: SignedLog, key: SigningKey) -> None:
    assert (log.head([key.public]), log.entries([key.public])) == (None, [])
    filled(log, key)
    entries = log.entries([key.public])
    assert [(one.number, one.body) for one in entries] == [(n, {"say": f"line {n}"}) for n in (1, 2, 3, 4)]
    assert {one.signed_by for one in entries} == {key.public.id}
    assert log.head([key.public]) == entries[-1]
    assert log.newer(entries[1], [key.public]) == entries[2:] and log.newer(entries[-1], [key.public]) == []
    assert newest_of(entries) == (4, entries[-1].digest) and newest_of([]) == (0, "")


def test_the_same_log_by_the_same_key_has_the_same_bytes(log: SignedLog, key: SigningKey, tmp_path: Path) -> None:
    other = filled(SignedLog(FolderStore(tmp_path / "other"), "some/log", TYPE), key)
    assert filled(log, key).entries([key.public]) == other.entries([key.public])


def test_of_many_writers_exactly_one_wins_each_place(log: SignedLog, key: SigningKey) -> None:
    start, lost = threading.Barrier(6), []

    def write(name: int) -> None:
        start.wait()
        for number in range(5):
            try:
                log.append({"who": name}, expected=number, key=key)
            except LogConflictError:
                lost.append((name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = log.entries([key.public])
    assert len(entries) + len(lost) == 30 and len(entries) <= 5


def test_who_expects_what_is_not_there_changes_nothing(log: SignedLog, key: SigningKey) -> None:
    filled(log, key, 2)
    for expected in (0, 1, 3, 7):
        with pytest.raises(LogConflictError, match="nothing was changed"):
            log.append({}, expected=expected, key=key)
    assert log.numbers() == [1, 2]
    with pytest.raises(ValueError, match="number"):
        log.append({"number": 9}, expected=2, key=key)


def flip(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    content = bytearray(path_of(log, 2).read_bytes())
    content[len(content) // 2] ^= 1
    path_of(log, 2).write_bytes(content)


def delete(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    path_of(log, 2).unlink()


def swap(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    first, second = path_of(log, 2).read_bytes(), path_of(log, 3).read_bytes()
    path_of(log, 2).write_bytes(second)
    path_of(log, 3).write_bytes(first)


def sign_again(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    path_of(log, 2).unlink()
    log.append({"say": "line 2"}, expected=1, key=other)


def rewrite(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    """Somebody who may sign changes what was said."""
    path_of(log, 2).unlink()
    log.append({"say": "something else"}, expected=1, key=key)


def of_another_log(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    another = filled(SignedLog(log.store, "another/log", TYPE), key)
    shutil.copy(path_of(another, 2), path_of(log, 2))


def of_another_kind(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    another = filled(SignedLog(FolderStore(path_of(log, 1).parents[3] / "other"), "some/log", "text/x"), key)
    shutil.copy(path_of(another, 2), path_of(log, 2))


def without_form(log: SignedLog, key: SigningKey, other: SigningKey) -> None:
    path_of(log, 2).write_bytes(sign(json.dumps(["no", "entry"]).encode(), TYPE, key))


HARM: dict[Callable[[SignedLog, SigningKey, SigningKey], None], tuple[str, set[int]]] = {
    flip: ("entry 2 of some/log", {2}),
    delete: ("entry 2 of some/log .* is missing", {2}),
    swap: ("entry 2 of some/log .* is entry 3", {2, 3}),
    sign_again: ("no trusted key has signed entry 2 of some/log", {2}),
    rewrite: ("entry 3 of some/log .* was not written after the entry 2", {3}),
    of_another_log: ("entry 2 of some/log .* is entry 2 of 'another/log'", {2}),
    of_another_kind: ("entry 2 of some/log .* is of type 'text/x'", {2}),
    without_form: ("entry 2 of some/log .* not of the form", {2}),
}


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
def test_every_harm_to_an_entry_is_found_and_names_it(
    log: SignedLog, key: SigningKey, tmp_path: Path, harm: Callable[[SignedLog, SigningKey, SigningKey], None]
) -> None:
    filled(log, key)
    harm(log, key, signing_key(tmp_path / "others"))
    words, numbers = HARM[harm]
    with pytest.raises(IntegrityError, match=words):
        log.entries([key.public])
    _, problems = log.examined([key.public])
    assert {one.number for one in problems} == numbers
    assert all(one.key == log.key(one.number) and f"entry {one.number} of some/log" in one.problem for one in problems)


def test_the_head_is_not_taken_from_a_log_with_a_gap_or_a_forged_end(
    log: SignedLog, key: SigningKey, tmp_path: Path
) -> None:
    filled(log, key, 3)
    log.append({"say": "forged"}, expected=3, key=signing_key(tmp_path / "others"))
    with pytest.raises(IntegrityError, match="no trusted key has signed entry 4"):
        log.head([key.public])
    path_of(log, 4).unlink()
    rewrite(log, key, key)
    with pytest.raises(IntegrityError, match=r"entry 3 .* was not written after"):
        log.head([key.public])
    path_of(log, 1).unlink()
    with pytest.raises(IntegrityError, match=r"entry 1 .* is missing"):
        log.head([key.public])


def test_who_follows_a_log_is_not_led_onto_another_branch_of_it(log: SignedLog, key: SigningKey) -> None:
    filled(log, key, 3)
    seen = log.head([key.public])
    assert seen is not None
    for number in (2, 3):
        path_of(log, number).unlink()
    for number in (1, 2, 3):
        log.append({"say": "another past"}, expected=number, key=key)
    assert len(log.entries([key.public])) == 4, "by itself the log is whole"
    with pytest.raises(IntegrityError, match=r"entry 4 .* was not written after"):
        log.newer(seen, [key.public])


def test_an_anchor_tells_what_the_log_alone_cannot(log: SignedLog, key: SigningKey) -> None:
    entries = filled(log, key, 3).entries([key.public])
    assert anchor_problem(log, 0, "") == anchor_problem(log, 3, entries[-1].digest) == ""
    path_of(log, 3).unlink()
    assert len(log.entries([key.public])) == 2, "cut off, the log by itself is whole"
    assert "the log was cut" in anchor_problem(log, 3, entries[-1].digest)
    log.append({"say": "another third"}, expected=2, key=key)
    assert "was replaced" in anchor_problem(log, 3, entries[-1].digest)
