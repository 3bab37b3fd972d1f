"""The teacher's temperature: what is fitted, what it is measured by, and what it does to a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from components.errors import DataError
from components.soft_labels.calibration import calibrated, expected_calibration_error
from components.soft_labels.manifest import TEACHER_TEMPERATURE
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.writer import write_cache
from components.tasks.batch import EvaluationBatch
from tests.unit.soft_labels.table_teacher import OUTCOMES, POINTS, SETTINGS, FarStore, TableTask, TableTeacher, cache_in


class HeldOut:
    """Validation events whose outcomes are drawn from the teacher's own distribution at some temperature."""

    def __init__(self, teacher: TableTeacher, temperature: float, repeats: int = 40) -> None:
        probabilities = (teacher.table / temperature).softmax(1)
        generator = torch.Generator().manual_seed(3)
        self.points = torch.arange(POINTS).repeat(repeats)
        self.targets = torch.multinomial(probabilities[self.points], 1, generator=generator).squeeze(1)

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[EvaluationBatch]:
        assert split == "validation"
        for points, targets in zip(self.points.split(batch_size), self.targets.split(batch_size), strict=True):
            empty = torch.zeros(0, dtype=torch.int64)
            yield EvaluationBatch((points,), {}, targets, points, (empty, empty))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_from_which_the_outcomes_come_is_found(teacher: TableTeacher, temperature: float) -> None:
    found = calibrated(teacher, HeldOut(teacher, temperature))
    assert found.temperature == pytest.approx(temperature, rel=0.03)
    assert found.temperature == round(found.temperature, 3) and found.events == 40 * POINTS
    assert found.nll_after <= found.nll_before
    if temperature != 1.0:
        assert found.ece_after < 0.2 * found.ece_before
        assert found.ece_after < 0.02


def test_the_fit_is_the_smallest_likelihood_on_a_fine_grid(teacher: TableTeacher) -> None:
    events = HeldOut(teacher, 1.7)
    found = calibrated(teacher, events)
    logits = teacher.table[events.points]

    def nll(temperature: float) -> float:
        return float(torch.nn.functional.cross_entropy(logits / temperature, events.targets))

    grid = np.arange(1.0, 2.5, 0.005)
    assert found.temperature == pytest.approx(min(grid, key=nll), abs=0.006)
    assert (found.nll_before, found.nll_after) == pytest.approx((nll(1.0), nll(found.temperature)), rel=1e-5)


def test_the_calibration_error_is_that_of_torchmetrics(teacher: TableTeacher) -> None:
    events = HeldOut(teacher, 2.0)
    probabilities = teacher.table[events.points].softmax(1)
    sure, best = probabilities.max(1)
    expected = multiclass_calibration_error(probabilities, events.targets, num_classes=OUTCOMES, n_bins=15, norm="l1")
    assert expected_calibration_error(sure, best == events.targets) == pytest.approx(float(expected), rel=1e-4)
    assert expected_calibration_error(torch.ones(4), torch.tensor([True, True, False, False])) == 0.5
    assert expected_calibration_error(torch.zeros(0), torch.zeros(0, dtype=torch.bool)) == 0.0


def test_of_very_many_events_some_are_enough(teacher: TableTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.soft_labels.calibration._MOST_EVENTS", 3000)
    found = calibrated(teacher, HeldOut(teacher, 2.0))
    assert found.events == 3000
    assert found.temperature == pytest.approx(2.0, rel=0.06)


def test_without_a_validation_event_there_is_nothing_to_fit(teacher: TableTeacher) -> None:
    with pytest.raises(DataError, match="no validation event"):
        calibrated(teacher, HeldOut(teacher, 1.0, repeats=0))


class AskedForTheRest(HeldOut):
    """The same, the outcomes that are left out of each point's labels never drawn; some of its events repeat one."""

    def __init__(self, teacher: TableTeacher, repeats: int = 60) -> None:
        super().__init__(teacher, 1.0, repeats)
        # The likeliest ones: what a user has taken is what a teacher would expect of the user.
        self.left_out = teacher.table.topk(6, dim=1).indices
        logits = teacher.table.scatter(1, self.left_out, -torch.inf)
        self.targets = torch.multinomial(logits.softmax(1)[self.points], 1).squeeze(1)
        self.targets[::50] = self.left_out[self.points[::50], 0]

    def evaluation_batches(self, split: str, batch_size: int) -> Iterator[EvaluationBatch]:
        for batch in super().evaluation_batches(split, batch_size):
            left_out = self.left_out[batch.users]
            row = torch.arange(len(left_out)).repeat_interleave(left_out.shape[1])
            yield batch._replace(known=(row, left_out.flatten()))


def test_what_labels_leave_out_is_left_out_of_the_fit(teacher: TableTeacher, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher that is right about what it is asked for stays as it is."""
    monkeypatch.setattr("components.soft_labels.calibration._LOGITS_AT_ONCE", 100 * OUTCOMES)
    torch.manual_seed(5)
    events = AskedForTheRest(teacher)
    found = calibrated(teacher, events)
    assert found.temperature == pytest.approx(1.0, abs=0.03)
    asked = torch.ones(len(events.targets), dtype=torch.bool)
    asked[::50] = False
    assert found.events == int(asked.sum())
    logits = teacher.table.scatter(1, events.left_out, -1e4)[events.points[asked]]
    nll = torch.nn.functional.cross_entropy(logits, events.targets[asked])
    assert found.nll_before == pytest.approx(float(nll), rel=1e-5)
    assert found.ece_before < 0.02


def write(store: FarStore, teacher: TableTeacher, folder: Path, **further: Any) -> SoftLabelReader:
    digests = {"teacher_digest": "a" * 64, "dataset_digest": "b" * 64}
    manifest = write_cache(store, teacher, TableTask(), SETTINGS, **digests, show=False, workers=1, **further)
    return SoftLabelReader(store, manifest, folder / "cache")


def test_a_calibrated_cache_is_another_cache_of_the_divided_logits(
    store: FarStore, teacher: TableTeacher, tmp_path: Path
) -> None:
    plain = write(store, teacher, tmp_path)
    reader = write(store, teacher, tmp_path, temperature=1.75)
    assert reader.manifest.id != plain.manifest.id
    assert reader.manifest.codec[TEACHER_TEMPERATURE] == reader.manifest.teacher_temperature == 1.75
    labels = reader.labels(torch.arange(POINTS))
    expected = (teacher.table / 1.75).log_softmax(1).gather(1, labels.ids)
    torch.testing.assert_close(labels.log_probs, expected, rtol=2e-3, atol=2e-3)
    # The same that reading an uncalibrated cache at that temperature would give, but for the tail.
    assert torch.equal(plain.labels(torch.arange(POINTS)).ids, labels.ids)


def test_a_teacher_as_it_is_has_the_cache_that_it_always_had(
    store: FarStore, teacher: TableTeacher, tmp_path: Path
) -> None:
    manifest = write(store, teacher, tmp_path, temperature=1.0).manifest
    assert manifest.id == cache_in(store, teacher).id
    assert TEACHER_TEMPERATURE not in manifest.codec and manifest.teacher_temperature == 1.0
