from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.apply_func import move_data_to_device

from components.errors import IntegrityError, SettingsError
from components.networks.contract import PredictionNetwork
from components.settings.distillation import DistillationSettings
from components.settings.network import CausalTransformerSettings
from components.settings.training import OptimizationSettings, TrainerSettings
from components.soft_labels.manifest import Manifest
from components.soft_labels.reader import SoftLabelReader
from components.tasks.batch import Batch
from components.tasks.next_item import NextItem
from components.training.data import LabelledBatches, TaskData
from components.training.distilling import DistillationTraining
from components.training.fitting import fit, initial_network
from tests.stage_modules import ROOT
from tests.unit.soft_labels.synthetic_cache import expected_labels, same_labels, synthetic_cache
from tests.unit.soft_labels.table_teacher import FarStore

OPTIMIZATION = OptimizationSettings(max_epochs=3, patience=3, batch_size=4, learning_rate=0.02)
DISTILLATION = DistillationSettings(lambda_hard=0.5, lambda_soft=0.5, temperature=2.0)


@pytest.fixture
def store(tmp_path: Path) -> FarStore:
    return FarStore(tmp_path / "store")


@pytest.fixture(params=["top_k_tail", "sampled"])
def codec(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"name": request.param, "k": 8}


@pytest.fixture
def manifest(store: FarStore, task: NextItem, codec: dict[str, Any]) -> Manifest:
    return synthetic_cache(store, task.points, 100, codec=codec, outcomes=task.outcomes)


@pytest.fixture
def labels(store: FarStore, manifest: Manifest, tmp_path: Path) -> SoftLabelReader:
    return SoftLabelReader(store, manifest, tmp_path / "cache")


class Counted(Sequence[Batch]):
    """Batches that say which of them were asked for, and that can fail."""

    def __init__(self, batches: Sequence[Batch], fail_at: int | None = None) -> None:
        self.batches, self.fail_at = batches, fail_at
        self.asked: list[int] = []
        self.threads: set[threading.Thread] = set()

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch:  # type: ignore[override]
        self.asked.append(index)
        self.threads.add(threading.current_thread())
        if index == self.fail_at:
            raise IntegrityError("this batch")
        return self.batches[index]


@pytest.fixture
def batches(task: NextItem) -> Counted:
    return Counted(task.training_batches(4, seed=0, epoch=0))


def wait_until(happens: Callable[[], object]) -> None:
    until = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.005)


def no_thread_is_left() -> None:
    wait_until(lambda: all(thread.name != "prepared ahead" for thread in threading.enumerate()))


@pytest.mark.parametrize("ahead", [0, 1, 4, 1000])
def test_batches_carry_the_labels_of_their_points_every_time(
    batches: Counted, labels: SoftLabelReader, store: FarStore, manifest: Manifest, ahead: int
) -> None:
    labelled = LabelledBatches(batches, labels, ahead)
    assert len(labelled) == len(batches) > 5
    for _ in range(2):
        found = list(labelled)
        for one, other in zip(found, batches.batches, strict=True):
            assert torch.equal(one.points, other.points) and torch.equal(one.targets, other.targets)
            assert one.labels is not None
            assert same_labels(one.labels, expected_labels(store, manifest, other.points))
    assert same_labels(labelled[3].labels, found[3].labels)
    no_thread_is_left()


def test_a_few_batches_are_made_in_the_background_and_no_more(batches: Counted, labels: SoftLabelReader) -> None:
    iteration = iter(LabelledBatches(batches, labels, ahead=2))
    assert batches.asked == []
    next(iteration)
    wait_until(lambda: len(batches.asked) == 3)
    time.sleep(0.05)
    assert batches.asked == [0, 1, 2]
    next(iteration)
    wait_until(lambda: batches.asked == [0, 1, 2, 3])
    assert threading.current_thread() not in batches.threads


def test_what_goes_wrong_in_the_background_is_raised_in_its_place(batches: Counted, labels: SoftLabelReader) -> None:
    batches.fail_at = 3
    found = []
    with pytest.raises(IntegrityError, match="this batch"):
        for batch in LabelledBatches(batches, labels, ahead=4):
            found.append(batch)
    assert len(found) == 3
    no_thread_is_left()


@pytest.mark.parametrize("how", ["closed", "forgotten", "left by an error"])
def test_an_iteration_that_is_given_up_leaves_no_thread(batches: Counted, labels: SoftLabelReader, how: str) -> None:
    iteration: Any = iter(LabelledBatches(batches, labels, ahead=2))
    next(iteration)
    if how == "closed":
        iteration.close()
    elif how == "left by an error":
        with pytest.raises(ZeroDivisionError):
            for _ in iteration:
                raise ZeroDivisionError
    del iteration
    no_thread_is_left()
    assert len(batches.asked) <= 4


def test_an_iteration_that_never_began_has_no_thread(batches: Counted, labels: SoftLabelReader) -> None:
    iteration = iter(LabelledBatches(batches, labels))
    assert batches.asked == []
    no_thread_is_left()
    del iteration


def test_labels_go_to_the_device_with_the_batch(batches: Counted, labels: SoftLabelReader) -> None:
    batch = move_data_to_device(LabelledBatches(batches, labels)[0], torch.device("meta"))
    assert isinstance(batch, Batch)
    assert batch.labels.log_probs.device.type == batch.labels.ids.device.type == "meta"
    assert move_data_to_device(batches[0], torch.device("meta")).labels is None


def test_a_loss_asks_the_reader_when_the_batch_carries_no_labels(
    task: NextItem, shape: CausalTransformerSettings, batches: Counted, labels: SoftLabelReader
) -> None:
    module = DistillationTraining(
        initial_network(shape, task.outcomes, 0), OPTIMIZATION, 0, task=task, labels=labels, distillation=DISTILLATION
    ).eval()
    with_labels = LabelledBatches(batches, labels)[0]
    assert torch.equal(module.loss_sum(with_labels), module.loss_sum(batches[0]))
    others = with_labels._replace(labels=labels.labels(batches[1].points[: len(with_labels.points)]))
    assert len(others.labels.log_probs) != len(others.points) or not torch.equal(
        module.loss_sum(others), module.loss_sum(batches[0])
    )


def test_labels_made_ahead_change_no_bit_of_the_training(
    task: NextItem, shape: CausalTransformerSettings, labels: SoftLabelReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> tuple[PredictionNetwork, Any]:
        network = initial_network(shape, task.outcomes, 0)
        result = fit(network, task, OPTIMIZATION, TrainerSettings(), 0, labels=labels, distillation=DISTILLATION)
        return network, result.curve

    ahead, curve = trained()
    seen = []
    loss_sum = DistillationTraining.loss_sum

    def spied(self: DistillationTraining, batch: Batch) -> Any:
        seen.append(batch.labels)
        return loss_sum(self, batch)

    monkeypatch.setattr(DistillationTraining, "loss_sum", spied)
    begin = TaskData.__init__
    monkeypatch.setattr(TaskData, "__init__", lambda self, *arguments: begin(self, *arguments[:3]))
    at_once, other_curve = trained()
    assert seen and all(labels is None for labels in seen)
    assert curve == other_curve
    theirs = at_once.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ahead.state_dict().items())


SCRIPT = """
import signal, sys, time
from pathlib import Path
import torch
from components.soft_labels.reader import SoftLabelReader
from components.tasks.batch import Batch
from components.training.data import LabelledBatches
from tests.unit.soft_labels.reading_processes import SlowStore
from tests.stage_modules import ROOT
from tests.unit.soft_labels.synthetic_cache import synthetic_cache

signal.signal(signal.SIGINT, signal.default_int_handler)
folder, seconds, do = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
store = SlowStore(folder / "store", seconds)
manifest = synthetic_cache(store, 1000, 100, outcomes=30)
reader = SoftLabelReader(store, manifest, folder / "cache")
reader.prefetch()
points = [torch.arange(first, first + 100) for first in range(0, 1000, 100)]
batches = LabelledBatches([Batch((), some, some, 100) for some in points], reader, ahead=2)
iteration = iter(batches)
if do == "end":
    next(iteration)
    sys.exit(0)
print("reads", flush=True)
for batch in iteration:
    print("step", flush=True)
    time.sleep(60 if do == "sleep" else 0)
"""


def script(tmp_path: Path, seconds: float, do: str) -> subprocess.Popen[str]:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    command = [sys.executable, str(path), str(tmp_path), str(seconds), do]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_a_process_ends_at_once_while_batches_and_parts_are_on_their_way(tmp_path: Path) -> None:
    process = script(tmp_path, 0.3, "end")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 0
    # Ten parts one after the other would have taken longer, so some were still to come.
    assert len((tmp_path / "requests.txt").read_text().split()) < 10


@pytest.mark.parametrize(("seconds", "do", "until"), [(60.0, "wait", "reads"), (0.01, "sleep", "step")])
def test_an_interruption_ends_the_process_at_once(tmp_path: Path, seconds: float, do: str, until: str) -> None:
    process = script(tmp_path, seconds, do)
    assert process.stdout is not None
    while process.stdout.readline().strip() != until:
        assert process.poll() is None
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - started < 5
    assert process.returncode in (1, -signal.SIGINT)
    # One error, however it is chained: it may come just while a wait of a moment ends with nothing.
    assert errors.count("Traceback") == 1 + errors.count("During handling of the above exception")
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in errors and "Fatal" not in errors


@pytest.mark.parametrize("world", [1, 2, 3, 7, 59, 60])
def test_devices_validate_equally_often_and_count_each_point_once(task: NextItem, world: int) -> None:
    """Under DDP a device that took one step more than the others would wait for them for ever."""
    shares = [list(_on_device(task, rank, world).val_dataloader()) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    counted = [[batch for batch, counted in share if counted] for share in shares]
    assert all(counted)
    users = torch.cat([batch.users for share in counted for batch in share])
    assert sorted(users.tolist()) == list(range(60))


def test_more_devices_than_validation_points_are_refused(task: NextItem) -> None:
    with pytest.raises(SettingsError, match="60 validation points, which 61 devices cannot share"):
        _on_device(task, 0, 61).val_dataloader()


def _on_device(task: NextItem, rank: int, world: int) -> TaskData:
    data = TaskData(task, batch_size=4, seed=0)
    data.trainer = type("Trainer", (), {"global_rank": rank, "world_size": world})()
    return data
