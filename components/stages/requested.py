"""Work that `recstill tune` asks of a process of its own: a request in a file, orders and answers a JSON line each."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import RecstillError
from components.stages.workspace import end_like_a_stage, interrupted
from components.storage.atomic import read_json


class Asker:
    """Whoever asked for the work, at the other end of standard input and output."""

    def __init__(self) -> None:
        # Whatever a library prints must not come between the answers: it goes where errors go, into a log.
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def tell(self, **answer: Any) -> None:
        """Say something."""
        print(json.dumps(answer), file=self._answers, flush=True)

    def agrees(self, **question: Any) -> bool:
        """Ask whether to go on; nobody at the other end agrees to nothing."""
        self.tell(**question)
        return sys.stdin.readline().strip() == "go on"


def run_request(work: Callable[[dict[str, Any], Asker], None]) -> None:
    """Entry point: ``python -m components.stages.<module> REQUEST``, a JSON file.

    Ends with status 1 and an answer ``error`` on a user's error, and 130 on Ctrl-C.
    """
    asker = Asker()
    end_like_a_stage()
    try:
        work(read_json(Path(sys.argv[1])), asker)
    except RecstillError as error:
        asker.tell(error=str(error))
        sys.exit(1)
    except BaseException as error:
        if not interrupted(error):
            raise
        sys.exit(130)


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Within the block nobody else who takes this lock is in theirs: one measures at a time."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
