"""Where a scenario's artifacts lie, and how a stage is started, timed and ended."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from components.errors import RecstillError
from components.settings.base import SettingsType
from components.settings.reading import read_document, read_pair, read_section, scenario_section
from components.settings.two_stage import TwoStageSettings
from components.storage.atomic import clear_disk_errors, write_json

if TYPE_CHECKING:
    from components.training.callbacks import Epoch

_IMPORTED = time.monotonic()
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Workspace:
    """One scenario in one checkout: its settings, and the paths that ``dvc.yaml`` names.

    Attributes:
        scenario: Name under ``scenarios:``, or under ``two_stage:``, in params.yaml.
        root: The checkout.
        artifacts: ``artifacts/<scenario>``, where every stage finds its inputs and leaves its outputs.
        watch: Is told of each epoch of a student, by the network's name; None when nobody watches.
    """

    def __init__(self, scenario: str, root: Path, watch: Callable[[str, Epoch], None] | None = None) -> None:
        self.scenario, self.root, self.watch = scenario, root, watch
        self.artifacts = root / "artifacts" / scenario

    def settings(self, section: str, model: type[SettingsType]) -> SettingsType:
        """One validated section of the scenario. A stage's ``params`` in dvc.yaml name what it asks for here."""
        return read_section(self.root, self.scenario, section, model)

    def value(self, section: str) -> Any:
        """A plain value of the scenario, such as ``seed`` or ``task``."""
        return scenario_section(self.root, self.scenario, section)

    def two_stage(self) -> TwoStageSettings:
        """Where the name is that of a pair of scenarios: which, and how they answer together."""
        return read_pair(self.root, self.scenario)

    def values(self) -> dict[str, Any]:
        """All that params.yaml holds of the scenario, not validated: for the record that goes into a package."""
        scenario: dict[str, Any] = read_document(self.root)["scenarios"][self.scenario]
        return scenario

    def write_metrics(self, stage: str, quality: Mapping[str, Any], started: float) -> None:
        """Write ``metrics/<stage>.json``: what was measured, and what it cost.

        Args:
            stage: Name in dvc.yaml.
            quality: Figures of the stage, JSON-able.
            started: ``time.monotonic()`` at its start.
        """
        write_json(self.artifacts / "metrics" / f"{stage}.json", {**quality, "cost": cost_since(started)})


def cost_since(started: float) -> dict[str, float]:
    """Seconds since ``started`` (``time.monotonic()``), CPU time and peak memory of this process and its children."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "seconds": round(time.monotonic() - started, 2),
        "cpu_seconds": round(sum(use.ru_utime + use.ru_stime for use in usage), 2),
        "peak_mib": round(max(use.ru_maxrss for use in usage) / 1024, 1),
    }


def run_stage(stage: str, work: Callable[[Workspace], None]) -> None:
    """Entry point of every stage: ``python -m components.stages.<stage> <scenario>``.

    Ends with exit status 1 and one clear message on a user's error, and 130 on Ctrl-C; nothing half-written is
    left in either case. Whoever starts it learns from the file named by ``RECSTILL_STAGE_NOTE`` how it ended.
    """
    description = sys.modules["__main__"].__doc__
    parser = argparse.ArgumentParser(prog=f"python -m components.stages.{stage}", description=description)
    parser.add_argument("scenario", help="a scenario of params.yaml, or a pair of them")
    workspace = Workspace(parser.parse_args().scenario, Path.cwd())
    end_like_a_stage()
    try:
        with clear_disk_errors(workspace.artifacts):
            work(workspace)
    except RecstillError as error:
        _end(error=str(error))
        sys.exit(1)
    except BaseException as error:
        if not interrupted(error):
            raise
        _end(error="interrupted; nothing half-written is left")
        sys.exit(130)
    _end()


def interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C lies at the bottom of it: a library that is interrupted may fail again while it cleans up."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def end_like_a_stage() -> None:
    """A polite kill ends this process like Ctrl-C, so that temporary files are removed; so does its parent's end."""
    signal.signal(signal.SIGTERM, _interrupt)
    _end_with_parent()


def _end(error: str | None = None) -> None:
    """Tell whoever started the stage how it ended; a person, when nobody else did."""
    if path := os.environ.get("RECSTILL_STAGE_NOTE"):
        Path(path).write_text(json.dumps({"seconds": _process_seconds(), "error": error}), encoding="utf-8")
    elif error:
        print(f"\nerror: {error}", file=sys.stderr, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one would disturb the cleaning up
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the parent is killed: a second run must not meet a stage that nobody waits for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _process_seconds() -> float:
    """Seconds since this process was started, to a hundredth; where Linux does not tell, since this module was read."""
    try:
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.monotonic() - _IMPORTED
