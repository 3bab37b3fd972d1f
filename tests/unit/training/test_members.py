from pathlib import Path

import pytest
import torch

from components.errors import TrainingError
from components.networks.contract import PredictionNetwork
from components.settings.network import CausalTransformerSettings
from components.settings.teacher import TeacherSettings
from components.settings.threads import MEMBERS_VARIABLE
from components.settings.training import OptimizationSettings, TrainerSettings
from components.training import members
from components.training.members import TeacherTraining, TrainedMember, member_seed, side_by_side, train_members


def teacher(folder: Path, shape: CausalTransformerSettings, scratch: Path, **optimization: float) -> TeacherTraining:
    settings = TeacherSettings(
        network=shape,
        members=2,
        optimization=OptimizationSettings.model_validate({"max_epochs": 2, "batch_size": 4} | optimization),
    )
    return TeacherTraining(folder, "next_item", settings, TrainerSettings(), 0, scratch, "shop")


def weights(network: PredictionNetwork) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])


def test_members_are_the_same_side_by_side_and_one_after_the_other(
    prepared_folder: Path,
    shape: CausalTransformerSettings,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(at_once: int) -> list[TrainedMember]:
        monkeypatch.setenv(MEMBERS_VARIABLE, str(at_once))
        return train_members(teacher(prepared_folder, shape, tmp_path / str(at_once)))

    apart, together = run(1), run(2)
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(weights(one.network), weights(other.network))
        assert one.result == other.result
    assert not torch.equal(weights(apart[0].network), weights(apart[1].network))
    assert [member.result.name for member in together] == ["member-0", "member-1"]
    lines = capfd.readouterr().out.splitlines()
    assert sum(line.startswith("member-1 epoch 2/2 loss ") for line in lines) == 2


def test_the_error_of_a_member_in_its_own_process_is_the_same_clear_error(
    prepared_folder: Path, shape: CausalTransformerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MEMBERS_VARIABLE, "2")
    with pytest.raises(TrainingError, match=r"epoch 1, step(.|\n)*learning_rate"):
        train_members(teacher(prepared_folder, shape, tmp_path, learning_rate=1e38))


def test_seeds_of_members_differ_from_each_other_and_between_teachers() -> None:
    seeds = [member_seed(seed, number) for seed in range(20) for number in range(8)]
    assert len(set(seeds)) == len(seeds)


@pytest.mark.parametrize(
    ("at_once", "trainer", "gpu", "expected"),
    [
        (None, {"accelerator": "cpu"}, True, 3),
        (None, {"accelerator": "auto"}, False, 3),
        (None, {"accelerator": "auto", "devices": "auto"}, False, 3),
        (2, {"accelerator": "cpu"}, False, 2),
        (8, {"accelerator": "cpu"}, False, 5),
        (None, {"accelerator": "cpu", "devices": 2}, False, 1),
        (None, {"accelerator": "auto"}, True, 1),
        (2, {"accelerator": "auto"}, True, 2),
        (2, {"accelerator": "gpu", "devices": [1]}, True, 2),
        (2, {"accelerator": "gpu", "devices": 2}, True, 1),
        (2, {"accelerator": "gpu", "devices": "auto"}, True, 1),
        (2, {"accelerator": "gpu", "num_nodes": 2}, True, 1),
    ],
)
def test_processors_are_filled_and_a_gpu_is_shared_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, at_once: int | None, trainer: dict[str, object], gpu: bool, expected: int
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: gpu)
    monkeypatch.setattr(members, "cores", lambda: 7)
    if at_once is not None:
        monkeypatch.setenv(MEMBERS_VARIABLE, str(at_once))
    assert side_by_side(5, TrainerSettings.model_validate(trainer), threads=2) == expected
