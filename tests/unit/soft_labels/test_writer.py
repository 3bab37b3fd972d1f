from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.dataset import PreparedDataset
from components.errors import DataError, IntegrityError, SettingsError, StorageError, TrainingError
from components.networks.building import new_network
from components.settings.network import CausalTransformerSettings
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels import scoring
from components.soft_labels.codecs.dense import Dense
from components.soft_labels.codecs.top_k_tail import TopKTail
from components.soft_labels.manifest import Manifest, read_manifest
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.scoring import device_of, rows_per_part
from components.soft_labels.writer import write_cache
from components.storage.folder_store import FolderStore
from components.tasks.next_item import NextItem
from tests.unit.soft_labels.many_parts import PART_MIB
from tests.unit.soft_labels.table_teacher import POINTS, FarStore, TableTask, TableTeacher, cache_in

ROOT = Path(__file__).parents[3]


def objects(store: FolderStore) -> dict[str, bytes]:
    return {entry.key: store.get(entry.key) for entry in store.list("")}


def test_a_cache_is_parts_with_their_records_and_one_manifest(store: FarStore, teacher: TableTeacher) -> None:
    manifest = cache_in(store, teacher)
    assert [part.rows for part in manifest.parts] == [100, 100, 50]
    names = [part.name for part in manifest.parts] + [f"part-{number:05d}.json" for number in range(3)]
    assert sorted(objects(store)) == sorted(manifest.key(name) for name in [*names, "manifest.json"])
    assert read_manifest(store.get(manifest.key("manifest.json")), "store") == manifest
    assert teacher.scored == list(range(POINTS))
    probabilities = torch.softmax(teacher.table, dim=1)
    assert manifest.mean("top_mass") == pytest.approx(probabilities.amax(1).mean().item(), abs=1e-5)
    kept = probabilities.topk(8).values.sum(1).mean().item()
    assert manifest.mean("kept_mass") == pytest.approx(kept, abs=1e-5)


def test_the_same_teacher_and_data_give_the_same_bytes(tmp_path: Path) -> None:
    stores = [FolderStore(tmp_path / name) for name in ("one", "two")]
    for store in stores:
        cache_in(store, TableTeacher())
    assert objects(stores[0]) == objects(stores[1])


def test_an_interrupted_writer_goes_on_where_it_stopped(store: FarStore, tmp_path: Path) -> None:
    whole = cache_in(FolderStore(tmp_path / "whole"), TableTeacher())
    interrupted = TableTeacher()
    interrupted.stop_at = 170
    with pytest.raises(KeyboardInterrupt):
        cache_in(store, interrupted)
    assert not any("manifest" in key for key in objects(store))
    again = TableTeacher()
    assert cache_in(store, again) == whole
    assert again.scored == list(range(100, POINTS))
    assert objects(store) == objects(FolderStore(tmp_path / "whole"))


def test_a_complete_cache_is_not_scored_again(store: FarStore, teacher: TableTeacher) -> None:
    manifest = cache_in(store, teacher)
    teacher.scored.clear()
    assert cache_in(store, teacher) == manifest
    assert teacher.scored == []


@pytest.mark.parametrize("step", range(8))
def test_a_kill_at_any_write_leaves_no_manifest_and_the_rerun_ends_the_same(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FolderStore(tmp_path / "whole")
    manifest = cache_in(whole, TableTeacher())
    store = FolderStore(tmp_path / "store")
    with monkeypatch.context() as patched:
        writes = 0

        def counted(write: Callable) -> Callable:
            def counting(*arguments):
                nonlocal writes
                if writes == step:
                    raise KeyboardInterrupt
                writes += 1
                return write(*arguments)

            return counting

        patched.setattr(store, "put", counted(store.put))
        patched.setattr(store, "put_if_absent", counted(store.put_if_absent))
        if step < 7:
            with pytest.raises(KeyboardInterrupt):
                cache_in(store, TableTeacher())
            assert manifest.key("manifest.json") not in objects(store)
        else:
            cache_in(store, TableTeacher())
    again = TableTeacher()
    assert cache_in(store, again) == manifest
    assert len(again.scored) == {0: 250, 1: 250, 2: 150, 3: 150, 4: 50, 5: 50, 6: 0, 7: 0}[step]
    assert objects(store) == objects(whole)


class CleanedStore(FarStore):
    """Somebody cleans up while the writer is at work: before it looks, a finished part is gone, as often as told."""

    def __init__(self, folder: Path, times: int) -> None:
        super().__init__(folder)
        self.times = times

    def list(self, prefix: str):
        if self.times > 0:
            self.times -= 1
            for entry in [*super().list("soft-labels/")]:
                if "part-00001" in entry.key:
                    self.delete(entry.key)
        return super().list(prefix)


def test_parts_that_are_cleaned_up_before_the_manifest_are_scored_again(tmp_path: Path, teacher: TableTeacher) -> None:
    store = CleanedStore(tmp_path / "store", times=1)
    manifest = cache_in(store, teacher)
    assert sorted(teacher.scored[:POINTS]) == [*range(POINTS)] and sorted(teacher.scored[POINTS:]) == [*range(100, 200)]
    assert {manifest.key(part.name) for part in manifest.parts} <= set(objects(store))
    never = CleanedStore(tmp_path / "never", times=99)
    with pytest.raises(StorageError, match="are deleted"):
        cache_in(never, TableTeacher())
    assert not any("manifest" in key for key in objects(FolderStore(tmp_path / "never")))


def test_a_killed_process_leaves_finished_parts_that_the_rerun_takes_over(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tests.unit.soft_labels.table_teacher import *\n"
        "class Stuck(TableTeacher):\n"
        "    def encode(self, points): time.sleep(600 * (points[0] >= 132)); return super().encode(points)\n"
        "cache_in(FolderStore(Path(sys.argv[1])), Stuck())\n"
    )
    store = FolderStore(tmp_path / "store")
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "store")], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not any(entry.key.endswith("00000.json") for entry in store.list("")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    again = TableTeacher()
    manifest = cache_in(store, again)
    assert again.scored == list(range(100, POINTS))
    assert manifest == cache_in(FolderStore(tmp_path / "whole"), TableTeacher())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes().replace(b"5", b"4", 1)),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.unlink(),
    ],
    ids=["changed", "cut", "deleted"],
)
@pytest.mark.parametrize("which", ["part-00001-*.safetensors", "part-00001.json", "manifest.json"])
def test_writing_once_more_heals_a_damaged_store(store: FarStore, tmp_path: Path, which: str, damage) -> None:
    manifest = cache_in(store, TableTeacher())
    before = objects(store)
    (path,) = (tmp_path / "store" / "soft-labels" / manifest.id).glob(which)
    damage(path)
    assert objects(store) != before
    again = TableTeacher()
    assert cache_in(store, again) == manifest
    assert objects(store) == before
    assert again.scored == ([] if which == "manifest.json" else list(range(100, 200)))


def test_writers_that_race_agree_on_one_manifest(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    start = threading.Barrier(8)

    class Differing(TableTeacher):
        """As on machines that round differently: no two writers make the same bytes."""

        def __init__(self, number: int) -> None:
            super().__init__()
            self.table = self.table + 0.01 * number * torch.arange(30)

    def write(number: int) -> Manifest:
        start.wait()
        return cache_in(store, Differing(number))

    with ThreadPoolExecutor(8) as pool:
        manifests = list(pool.map(write, range(8)))
    assert all(manifest == manifests[0] for manifest in manifests)
    assert read_manifest(store.get(manifests[0].key("manifest.json")), "store") == manifests[0]
    assert (
        len(SoftLabelReader(store, manifests[0], tmp_path / "cache").labels(torch.arange(POINTS)).log_probs) == POINTS
    )


def test_a_teacher_that_gives_nan_stops_the_writer(store: FarStore, teacher: TableTeacher) -> None:
    teacher.table[120, 3] = torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        cache_in(store, teacher)


def test_a_task_that_gives_other_points_is_refused(store: FarStore, teacher: TableTeacher) -> None:
    class Shuffled(TableTask):
        def scoring_batches(self, first: int, stop: int, batch_size: int):
            for batch in super().scoring_batches(first, stop, batch_size):
                yield batch._replace(points=batch.points.flip(0))

    class Short(TableTask):
        def scoring_batches(self, first: int, stop: int, batch_size: int):
            yield from super().scoring_batches(first, stop - 1, batch_size)

    class Empty(TableTask):
        points = 0

    settings = SoftLabelSettings(k=2)
    digests = {"teacher_digest": "a" * 64, "dataset_digest": "b" * 64, "show": False}
    for task in (Shuffled(), Short()):
        with pytest.raises(IntegrityError, match="points"):
            write_cache(store, teacher, task, settings, **digests)
    with pytest.raises(DataError, match="no training point"):
        write_cache(store, teacher, Empty(), settings, **digests)


def test_an_accelerator_that_is_not_there_is_named() -> None:
    assert device_of("cpu") == torch.device("cpu")
    assert device_of("auto").type in ("cpu", "cuda")
    with pytest.raises(SettingsError, match="'tpu'"):
        device_of("tpu")


def test_progress_is_told_in_plain_lines_when_there_is_no_terminal(
    store: FarStore, teacher: TableTeacher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("components.soft_labels.progress._SECONDS_BETWEEN_LINES", 0.0)
    write_cache(
        store,
        teacher,
        TableTask(),
        SoftLabelSettings(k=2),
        teacher_digest="a" * 64,
        dataset_digest="b" * 64,
        show=True,
        workers=1,
    )
    said = capsys.readouterr().out
    assert "scoring: 32 of 250 rows" in said
    assert "rows/s" in said
    assert "s left" in said


def test_labels_of_the_real_task_are_the_teachers_distribution(prepared: PreparedDataset, tmp_path: Path) -> None:
    shape = CausalTransformerSettings(dim=16, blocks=1, heads=2, ffn_dim=16, max_length=5, dropout=0.1)
    torch.manual_seed(0)
    teacher = new_network(shape, prepared.items)
    task = NextItem(prepared, 5)
    settings = SoftLabelSettings(codec="dense", rows_per_part=37)
    store = FolderStore(tmp_path / "store")
    manifest = write_cache(
        store, teacher, task, settings, teacher_digest="a" * 64, dataset_digest=prepared.digest, show=False
    )
    reader = SoftLabelReader(store, manifest, tmp_path / "cache")
    assert not teacher.training
    with torch.inference_mode():
        for batch in task.scoring_batches(0, prepared.points, 7):
            expected = torch.log_softmax(teacher(*batch.inputs), dim=1)
            torch.testing.assert_close(reader.labels(batch.points).log_probs, expected, atol=4e-3, rtol=0)


ALL_CODECS = {
    "dense": {"codec": "dense"},
    "top_k_tail": {"codec": "top_k_tail", "k": 4, "compression": "zstd"},
    "sampled": {"codec": "sampled", "k": 6, "hidden_states": True},
    "top_k_sampled": {"codec": "top_k_sampled", "k": 6, "head": 2},
}


def real_cache(prepared: PreparedDataset, folder: Path, workers: int, **settings) -> dict[str, bytes]:
    shape = CausalTransformerSettings(dim=16, blocks=1, heads=2, ffn_dim=16, max_length=5, dropout=0.1)
    torch.manual_seed(0)
    store = FolderStore(folder)
    write_cache(
        store,
        new_network(shape, prepared.items),
        NextItem(prepared, 5),
        SoftLabelSettings(rows_per_part=37, **settings),
        teacher_digest="a" * 64,
        dataset_digest=prepared.digest,
        show=False,
        workers=workers,
    )
    return objects(store)


@pytest.mark.parametrize("settings", ALL_CODECS.values(), ids=ALL_CODECS)
def test_any_number_of_workers_writes_the_same_bytes(prepared: PreparedDataset, tmp_path: Path, settings) -> None:
    alone = real_cache(prepared, tmp_path / "1", 1, **settings)
    assert len(alone) > 20
    for workers in (2, 3):
        assert real_cache(prepared, tmp_path / str(workers), workers, **settings) == alone


def test_random_numbers_that_come_in_the_order_of_the_work_make_other_bytes(
    prepared: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The naive twin of the test above: one generator for all parts, after an interruption."""
    drawn = []
    for interrupted in (False, True):
        generator = np.random.default_rng(0)
        monkeypatch.setattr(scoring, "uniforms_of", lambda _identity, _number, *shape: generator.random(shape))  # noqa: B023
        folder = tmp_path / str(interrupted)
        before = real_cache(prepared, folder, 1, **ALL_CODECS["sampled"])
        if interrupted:
            for path in folder.rglob("*part-00003*"):
                path.unlink()
            before = real_cache(prepared, folder, 1, **ALL_CODECS["sampled"])
        drawn.append(before)
    assert drawn[0] != drawn[1]


def test_every_worker_computes_with_one_thread_and_leaves_the_callers_number_alone(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []

    class Watched(TableTeacher):
        def encode(self, *inputs, **named):
            seen.append((threading.current_thread().name, torch.get_num_threads()))
            time.sleep(0.01)
            return super().encode(*inputs, **named)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cache_in(FolderStore(tmp_path), Watched(), workers=3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert {threads for _, threads in seen} == {1}
    assert len({name for name, _ in seen}) == 3


def test_the_first_error_stops_all_workers_and_keeps_what_is_finished(tmp_path: Path) -> None:
    class Failing(TableTeacher):
        def encode(self, *inputs, **named):
            if int(inputs[0][0]) >= 100:
                while not any("00000.json" in entry.key for entry in store.list("")):
                    time.sleep(0.001)
            if int(inputs[0][0]) == 132:
                raise TrainingError("enough")
            if int(inputs[0][0]) >= 200:
                time.sleep(0.2)
            return super().encode(*inputs, **named)

    store = FolderStore(tmp_path)
    teacher = Failing()
    with pytest.raises(TrainingError, match="enough"):
        cache_in(store, teacher, workers=3)
    scored = len(teacher.scored)
    time.sleep(0.3)
    assert len(teacher.scored) == scored, "a worker has gone on"
    assert [entry.key[-15:] for entry in store.list("") if entry.key.endswith(".json")] == ["part-00000.json"]
    again = TableTeacher()
    assert cache_in(store, again, workers=3) == cache_in(FolderStore(tmp_path / "whole"), TableTeacher())
    assert sorted(again.scored) == list(range(100, POINTS))


def test_ctrl_c_ends_all_workers_within_seconds_and_keeps_what_is_finished(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tests.unit.soft_labels.table_teacher import *\n"
        "class Slow(TableTeacher):\n"
        "    def encode(self, points): time.sleep(0.5 * int(points[0] >= 132)); return super().encode(points)\n"
        "try: cache_in(FolderStore(Path(sys.argv[1])), Slow(), workers=2)\n"
        "except KeyboardInterrupt: print('ended')\n"
    )
    store = FolderStore(tmp_path / "store")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "store")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 60
        while not any(entry.key.endswith("00000.json") for entry in store.list("")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.communicate(timeout=30)[0] == "ended\n"
        assert time.monotonic() - began < 5
    assert not any(path.name.startswith(".") for path in tmp_path.rglob("*")), "something half-written is left"
    again = TableTeacher()
    cache_in(store, again)
    assert min(again.scored) >= 100


def peak_mib(folder: Path, parts: int, *how: str) -> float:
    command = [sys.executable, "-m", "tests.unit.soft_labels.many_parts", str(folder), str(parts), *how]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def test_the_writers_memory_does_not_grow_with_the_cache(tmp_path: Path) -> None:
    few, many = 8, 72
    grown = peak_mib(tmp_path / "many", many) - peak_mib(tmp_path / "few", few)
    naive = peak_mib(tmp_path / "naive", many, "naive") - peak_mib(tmp_path / "naive-few", few, "naive")
    assert grown < (many - few) * PART_MIB / 4 < naive, (grown, naive)


def test_a_part_is_never_larger_than_64_mib() -> None:
    settings = SoftLabelSettings(codec="dense")
    assert rows_per_part(settings, Dense(100)) == settings.rows_per_part
    for outcomes in (10_000, 200_000, 50_000_000):
        codec = Dense(outcomes)
        rows = rows_per_part(settings, codec)
        assert rows == 1 or rows * codec.bytes_per_row <= 64 << 20 < (rows + 1) * codec.bytes_per_row
    assert rows_per_part(SoftLabelSettings(rows_per_part=10), TopKTail(50_000_000, 64)) == 10
