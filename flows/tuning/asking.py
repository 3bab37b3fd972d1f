"""Work that needs torch, in a process of its own: a request, its answers line by line, and every way it can end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from components.errors import RecstillError
from components.storage.atomic import write_json

ENDING = threading.Event()
"""Set by Ctrl-C: what ends from then on was interrupted, and has not failed."""
_SHOWN_LINES = 3


class InterruptedWorkError(RecstillError):
    """The process was ended with the command that started it."""


def ask(
    module: str, request: Mapping[str, Any], folder: Path, hear: Callable[[Mapping[str, Any]], bool] | None = None
) -> None:
    """Run ``components.stages.<module>`` on a request until it has ended.

    Args:
        module: Its name.
        request: JSON-able.
        folder: Where the request and the log of the process go.
        hear: Is given each answer; what it returns says whether the process may go on, where it asks that.

    Raises:
        InterruptedWorkError: It was ended by Ctrl-C or a polite kill.
        RecstillError: It ended with an error of its own, or died.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, log = folder / f"{module}.json", folder / f"{module}.log"
    write_json(path, dict(request))
    error = None
    with log.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", f"components.stages.{module}", str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stream,
            text=True,
            # Trials are side by side: each computes with as many threads as the settings say, and shows no bars.
            env={**os.environ, "TTY_COMPATIBLE": "0"},
        )
        with process:
            assert process.stdin is not None and process.stdout is not None
            for line in process.stdout:
                answer = json.loads(line)
                error = answer.get("error", error)
                goes_on = hear is None or hear(answer)
                if "step" in answer:
                    _say(process.stdin, "go on" if goes_on else "stop")
    if process.returncode == 0:
        return
    if ENDING.is_set() or process.returncode == 130:
        raise InterruptedWorkError("interrupted")
    if error is not None:
        message, _, remedy = error.partition("\n  ")
        raise RecstillError(message, remedy)
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_SHOWN_LINES:]
    cause = "was killed (out of memory?)" if process.returncode < 0 else f"ended with status {process.returncode}"
    raise RecstillError(f"{module} {cause}: {' | '.join(lines) or 'it said nothing'}", f"Its log is {log}")


def _say(stream: Any, word: str) -> None:
    try:
        stream.write(f"{word}\n")
        stream.flush()
    except BrokenPipeError:  # it has died: its status says how
        pass
