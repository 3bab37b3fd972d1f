"""A server that is killed under eight writers: what it has acknowledged is there and whole when it is back."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from components.errors import IntegrityError, StorageError
from components.soft_labels.manifest import read_manifest
from components.storage.contract import MissingObjectError, ObjectStore
from components.storage.object_store import open_store
from tests.integration.conftest import S3Server
from tests.integration.killed_writers import Board, LoggedTeacher, dataset_of, ended, for_children, forked, write
from tests.integration.naive import SendingLater

WRITERS, KILLS = 8, 5
# A writer asks four times within some seconds, then ends with an error; the server is back within seconds.
LONGEST_SECONDS = 120.0


class Acknowledged:
    """A store that notes in a file what it was told is written."""

    def __init__(self, store: Any, log: Path) -> None:
        self._store = store
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def put(self, key: str, content: bytes | Path, sha256: str) -> None:
        self._store.put(key, content, sha256)
        os.write(self._log, f"{key} {sha256}\n".encode())

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        won = self._store.put_if_absent(key, content, sha256)
        if won:
            os.write(self._log, f"{key} {sha256}\n".encode())
        return bool(won)


class Outcome(NamedTuple):
    """What came of the kills."""

    acknowledged: int
    lost: int
    """Objects that were acknowledged and are not there, or not whole."""
    caches: int
    """Whole caches that were written."""
    gave_up: int
    """Writers that ended with one clear error, and were started again."""


def killed_under_writers(
    server: S3Server, bucket: str, folder: Path, kills: int, wrap: Callable[[ObjectStore], Any] = lambda store: store
) -> Outcome:
    """Kill the server ``kills`` times while eight processes write caches, each its own, one after the other."""
    of_children, seeded = for_children(f"s3://{bucket}"), random.Random(5)
    board = Board(" ".join(f"errors-{number}" for number in range(WRITERS)) + " stop")
    logs = [folder / f"acknowledged-{number}" for number in range(WRITERS)]

    def work(number: int) -> None:
        store, written = Acknowledged(wrap(of_children), logs[number]), 0
        while not board["stop"]:
            teacher = LoggedTeacher(Path(os.devnull))
            try:
                write(store, teacher, dataset_of(f"{folder} {number} {written}"))  # type: ignore[arg-type]
                written += 1
            except StorageError as error:
                assert "cannot be reached" in error.message or "answers" in error.message, error
                board[f"errors-{number}"] += 1
            time.sleep(0.1)

    def acknowledged() -> list[list[str]]:
        return [line.split() for log in logs if log.is_file() for line in log.read_text().splitlines()]

    processes = [forked(lambda number=number: work(number)) for number in range(WRITERS)]  # type: ignore[misc]
    try:
        for _ in range(kills):
            before, deadline = len(acknowledged()), time.monotonic() + LONGEST_SECONDS
            while len(acknowledged()) < before + 5 * WRITERS and time.monotonic() < deadline:
                time.sleep(0.02)
            time.sleep(seeded.uniform(0, 0.3))
            server.kill()
            server.start()
    finally:
        board["stop"] = 1
        statuses = [ended(process, LONGEST_SECONDS) for process in processes]
    assert statuses == [0] * WRITERS
    own, lost, caches = open_store(f"s3://{bucket}"), 0, 0
    known = {key for key, _ in acknowledged()}
    for key, sha256 in acknowledged():
        try:
            content = own.get(key, sha256)
        except (IntegrityError, MissingObjectError):
            lost += 1
            continue
        if key.endswith("manifest.json"):
            manifest = read_manifest(content, key)
            # A part that was written by a request whose reply was lost is as good.
            lost += sum(
                manifest.key(part.name) not in known and own.size(manifest.key(part.name)) != part.bytes
                for part in manifest.parts
            )
            caches += 1
    return Outcome(len(acknowledged()), lost, caches, sum(board[f"errors-{number}"] for number in range(WRITERS)))


def test_nothing_that_was_acknowledged_is_lost_when_the_server_is_killed(s3_environment, tmp_path: Path) -> None:
    found = killed_under_writers(s3_environment, s3_environment.new_bucket(), tmp_path, KILLS)
    print(f"server kills={KILLS} writers={WRITERS} {found}")
    assert found.acknowledged > KILLS * 5 * WRITERS
    assert found.caches > WRITERS
    assert found.lost == 0


def test_the_same_kills_find_a_store_that_acknowledges_before_it_has_sent(s3_environment, tmp_path: Path) -> None:
    # A kill may come when nothing is on its way.
    for kill in range(1, 6):
        (folder := tmp_path / str(kill)).mkdir()
        found = killed_under_writers(s3_environment, s3_environment.new_bucket(), folder, 1, SendingLater)
        print(f"naive, sends later: server kills={kill} writers={WRITERS} {found}")
        if found.lost:
            return
    pytest.fail("a store that acknowledges before it has sent lost nothing in 5 kills")
