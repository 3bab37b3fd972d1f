"""The stage `train_teacher` as a process that is killed: nothing stays behind, and the next run goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path, prepared_folder: Path) -> Path:
    """A folder with parameters and a prepared data set; the code is the installed one."""
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    scenario = document["scenarios"]["synthetic"]
    scenario["teacher"] = {
        "members": 2,
        "network": {"dim": 8, "blocks": 1, "ffn_dim": 8, "max_length": 8},
        "optimization": {"max_epochs": 1000, "patience": 1000},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(document))
    (tmp_path / "artifacts" / "synthetic").mkdir(parents=True)
    (tmp_path / "artifacts" / "synthetic" / "dataset").symlink_to(prepared_folder)
    return tmp_path


def start(checkout: Path) -> subprocess.Popen[bytes]:
    with (checkout / "log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "components.stages.train_teacher", "synthetic"],
            cwd=checkout,
            stdout=log,
            stderr=log,
            # Two members side by side, however many cores there are.
            env={**os.environ, "RECSTILL_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )


def wait_for(checkout: Path, *texts: str) -> str:
    for _ in range(1200):
        log = (checkout / "log").read_text()
        if all(text in log for text in texts):
            return log
        time.sleep(0.1)
    raise AssertionError(f"{texts} never came:\n{log}")


def running_below(process: int) -> set[int]:
    """Children of a process that do something."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
        except OSError:
            continue
        if int(parent) == process and state != "Z":
            found.add(int(stat.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="members train side by side on two cores")
def test_a_killed_teacher_leaves_no_process_and_resumes_and_ctrl_c_ends_it_cleanly(checkout: Path) -> None:
    first = start(checkout)
    wait_for(checkout, "member-0 epoch 2/", "member-1 epoch 2/")
    members = running_below(first.pid)
    assert len(members) >= 2
    first.kill()
    first.wait()
    for _ in range(100):
        if not any(is_running(member) for member in members):
            break
        time.sleep(0.1)
    assert not any(is_running(member) for member in members)

    second = start(checkout)
    wait_for(checkout, "member-0 resumes after epoch", "member-1 resumes after epoch")
    members = running_below(second.pid)
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=60) == 130
    time.sleep(0.5)
    assert not any(is_running(member) for member in members)
    log = (checkout / "log").read_text()
    assert "interrupted; nothing half-written is left" in log and "Traceback" not in log
    assert [path.name for path in (checkout / "artifacts" / "synthetic").iterdir()] == ["dataset"]
