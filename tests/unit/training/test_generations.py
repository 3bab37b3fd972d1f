"""A teacher in generations: what each learns from, and what an interruption leaves."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import SettingsError
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import read_teacher
from components.settings.network import CausalTransformerSettings
from components.settings.teacher import TeacherSettings
from components.settings.threads import MEMBERS_VARIABLE
from components.settings.training import OptimizationSettings, TrainerSettings
from components.soft_labels import scoring
from components.soft_labels.publishing import publish_part
from components.storage.folder_store import FolderStore
from components.tasks.next_item import NextItem
from components.training import generations
from components.training.fitting import initial_network
from components.training.generations import TrainedTeacher, train_generations
from components.training.members import TeacherTraining, member_seed, train_members

LABELS = {"codec": "top_k_tail", "k": 16, "rows_per_part": 100}


@pytest.fixture(autouse=True)
def one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MEMBERS_VARIABLE, "1")


@pytest.fixture
def training(prepared_folder: Path, shape: CausalTransformerSettings, tmp_path: Path) -> TeacherTraining:
    """Two generations, of one network and of two."""
    settings = TeacherSettings.model_validate(
        {
            "network": shape,
            "optimization": OptimizationSettings(max_epochs=2, batch_size=4),
            "generations": 2,
            "first_members": 1,
            "members": 2,
            "soft_labels": LABELS,
        }
    )
    return TeacherTraining(prepared_folder, "next_item", settings, TrainerSettings(), 0, tmp_path / "scratch", "shop")


def changed(training: TeacherTraining, scratch: str, **settings: Any) -> TeacherTraining:
    """With other settings, and a scratch folder of its own."""
    document = {**training.settings.model_dump(exclude_unset=True), **settings}
    return replace(
        training, settings=TeacherSettings.model_validate(document), scratch=training.scratch.with_name(scratch)
    )


def weights(network: PredictionNetwork) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in network.state_dict().values()])


def same(one: TrainedTeacher, other: TrainedTeacher) -> bool:
    pairs = zip(one.members, other.members, strict=True)
    alike = all(torch.equal(weights(a.network), weights(b.network)) and a.result == b.result for a, b in pairs)
    return alike and one.earlier == other.earlier


@pytest.fixture(scope="module")
def kept() -> Iterator[dict[str, TrainedTeacher]]:
    """What was trained without an interruption, once for all tests."""
    yield {}


def uninterrupted(training: TeacherTraining, kept: dict[str, TrainedTeacher]) -> TrainedTeacher:
    if "teacher" not in kept:
        kept["teacher"] = train_generations(changed(training, "uninterrupted"))
    return kept["teacher"]


def test_a_teacher_of_one_generation_is_what_it_was(training: TeacherTraining) -> None:
    settings = training.settings.model_copy(update={"generations": 1, "members": 1})
    plain = train_members(replace(training, settings=settings, scratch=training.scratch.with_name("plain")))
    found = train_generations(replace(training, settings=settings, scratch=training.scratch.with_name("one")))
    assert same(found, TrainedTeacher(plain, []))
    assert [member.result.name for member in found.members] == ["member-0"]
    # As they were before there were generations.
    assert [member_seed(0, 0), member_seed(0, 1), member_seed(7, 3)] == [2968811710, 3964924996, 3466196061]


def test_the_second_generation_learns_from_the_first_and_is_another_teacher(
    training: TeacherTraining, kept: dict[str, TrainedTeacher], capfd: pytest.CaptureFixture[str]
) -> None:
    found = train_generations(training)
    kept.setdefault("teacher", found)
    first = read_teacher(training.scratch / "generation-1" / "teacher")
    settings = training.settings.model_copy(update={"generations": 1, "members": 1})
    [alone] = train_members(replace(training, settings=settings, scratch=training.scratch.with_name("alone")))
    assert torch.equal(weights(first), weights(alone.network)), "the first generation is a teacher of one generation"
    assert len(found.members) == 2
    assert all(not torch.equal(weights(first), weights(member.network)) for member in found.members)
    assert [member.result.name for member in found.members] == ["member-0", "member-1"]
    assert [[result.name for result in results] for results in found.earlier] == [["generation-1-member-0"]]
    lines = capfd.readouterr().out.splitlines()
    assert "generation 1 of 2: 1 network" in lines and "generation 2 of 2: 2 networks" in lines
    assert sum(line.startswith("generation-2-member-1 epoch ") for line in lines) == 2
    # Without the labels the same networks, seeds and batches give other weights.
    second = replace(
        training,
        settings=training.settings.model_copy(update={"members": 2}),
        scratch=training.scratch.with_name("unlabelled"),
        generation=2,
    )
    for labelled, unlabelled in zip(found.members, train_members(second), strict=True):
        assert not torch.equal(weights(labelled.network), weights(unlabelled.network))


def test_the_first_generation_may_be_trained_in_another_way(training: TeacherTraining) -> None:
    longer = {"first_optimization": OptimizationSettings(max_epochs=3, batch_size=4), "members": 1}
    found = train_generations(changed(training, "longer", **longer))
    assert [len(result.curve) for result in (*found.earlier[0], found.members[0].result)] == [3, 2]


def test_labels_alone_teach_the_second_generation_what_the_first_expects(
    training: TeacherTraining, task: NextItem
) -> None:
    soft = changed(
        training,
        "soft",
        members=1,
        optimization={"max_epochs": 6, "batch_size": 4, "learning_rate": 0.01, "average_decay": 0.5},
        distillation={"lambda_hard": 0.0, "lambda_soft": 1.0},
    )
    [member] = train_generations(soft).members
    first = read_teacher(soft.scratch / "generation-1" / "teacher")
    untrained = initial_network(soft.settings.network, task.outcomes, member_seed(0, 0, 2), task.sizes)

    def apart(network: PredictionNetwork) -> float:
        """KL(first || network), a mean over the training points."""
        [batch] = task.scoring_batches(0, task.points, 10_000)
        with torch.inference_mode():
            p, q = (each.eval()(*batch.inputs).log_softmax(1) for each in (first, network))
        return float((p.exp() * (p - q)).sum(1).mean())

    assert apart(member.network) < 0.5 * apart(untrained)


def test_members_of_later_generations_are_the_same_side_by_side(
    training: TeacherTraining, kept: dict[str, TrainedTeacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    apart = uninterrupted(training, kept)
    monkeypatch.setenv(MEMBERS_VARIABLE, "2")
    assert same(train_generations(training), apart)


def test_an_interrupted_generation_goes_on_and_a_finished_one_is_not_trained_again(
    training: TeacherTraining, kept: dict[str, TrainedTeacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = uninterrupted(training, kept)
    trained: list[int] = []
    parts: list[int] = []

    def counted(current: TeacherTraining) -> Any:
        trained.append(current.generation)
        if trained == [1, 2]:
            # As if it were stopped after the first of its two members.
            train_members(replace(current, settings=current.settings.model_copy(update={"members": 1})))
            raise KeyboardInterrupt
        return train_members(current)

    def published(*arguments: Any, **named: Any) -> Any:
        parts.append(1)
        if len(parts) == 2:
            raise KeyboardInterrupt
        return publish_part(*arguments, **named)

    monkeypatch.setattr(generations, "train_members", counted)
    monkeypatch.setattr(scoring, "publish_part", published)
    monkeypatch.setenv("RECSTILL_WORKERS", "1")
    with pytest.raises(KeyboardInterrupt):  # with one part of the labels
        train_generations(training)
    with pytest.raises(KeyboardInterrupt):  # with one member of the second generation
        train_generations(training)
    assert trained == [1, 2]
    assert same(train_generations(training), whole)
    assert trained == [1, 2, 2]
    store = FolderStore(training.scratch / "generation-1" / "labels")
    stored = [entry.key for entry in store.list("") if entry.key.endswith(".safetensors")]
    assert len(stored) > 2 and len(parts) == len(stored) + 1, "no part is scored twice, but for the one that was lost"


def test_a_further_device_waits_for_the_labels_of_the_first_and_writes_nothing(
    training: TeacherTraining, kept: dict[str, TrainedTeacher], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = uninterrupted(training, kept)
    leader = changed(training, "leader")
    train_generations(leader)
    waited: list[Path] = []

    def followed(current: TeacherTraining) -> Any:
        members = train_members(current)
        return [member._replace(result=replace(member.result, leads=False)) for member in members]

    def arrived(path: Path) -> None:
        waited.append(path)
        shutil.copytree(leader.scratch / "generation-1", path.parent, dirs_exist_ok=True)
        assert path.is_file()

    monkeypatch.setattr(generations, "train_members", followed)
    monkeypatch.setattr(generations, "_keep", None)
    monkeypatch.setattr(generations, "_wait_for", arrived)
    found = train_generations(training)
    assert waited == [training.scratch / "generation-1" / "labels.json"]
    assert not any(member.result.leads for member in found.members)
    for one, other in zip(found.members, whole.members, strict=True):
        assert torch.equal(weights(one.network), weights(other.network))


@pytest.mark.parametrize("damage", ["settings", "weights", "record"])
def test_a_generation_of_other_settings_or_with_damage_is_trained_again(
    training: TeacherTraining, kept: dict[str, TrainedTeacher], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = uninterrupted(training, kept)
    before = training if damage != "settings" else changed(training, "scratch", optimization={"max_epochs": 1})

    def stopped(current: TeacherTraining) -> Any:
        if current.generation == 2:
            raise KeyboardInterrupt
        return train_members(current)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(generations, "train_members", stopped)
        train_generations(before)
    teacher = training.scratch / "generation-1" / "teacher"
    if damage == "weights":
        path = teacher / "member-0" / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    if damage == "record":
        (teacher / "generation.json").unlink()
    assert same(train_generations(training), whole)


def test_three_generations_keep_the_labels_of_the_last_but_one_alone(training: TeacherTraining) -> None:
    three = changed(training, "three", generations=3, members=1, soft_labels=None)
    found = train_generations(three)
    assert [[result.name for result in results] for results in found.earlier] == [
        ["generation-1-member-0"],
        ["generation-2-member-0"],
    ]
    assert not (three.scratch / "generation-1" / "labels").exists()
    assert (three.scratch / "generation-2" / "labels").is_dir()
    # Two generations of those settings are the first two of the three.
    two = changed(training, "two", members=1, soft_labels=None)
    again = train_generations(two)
    assert torch.equal(
        weights(again.members[0].network), weights(read_teacher(three.scratch / "generation-2" / "teacher"))
    )


def test_a_warm_start_is_the_first_generations_alone(
    training: TeacherTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, Path | None] = {}

    def noted(current: TeacherTraining) -> Any:
        seen[current.generation] = current.earlier
        return train_members(replace(current, earlier=None))

    monkeypatch.setattr(generations, "train_members", noted)
    train_generations(replace(training, earlier=Path("an earlier teacher")))
    assert seen == {1: Path("an earlier teacher"), 2: None}


def test_a_loss_that_the_labels_will_not_serve_is_refused_before_anything_is_trained(
    training: TeacherTraining,
) -> None:
    hint = changed(training, "hint", distillation={"losses": [{"kind": "cross_entropy"}, {"kind": "hint"}]})
    with pytest.raises(SettingsError, match=r"scenarios\.shop\.teacher\.distillation\.losses\.1' \(hint\)"):
        train_generations(hint)
    click = changed(training, "click", soft_labels={"codec": "logit"})
    with pytest.raises(SettingsError, match="logit"):
        train_generations(click)
    assert not training.scratch.parent.joinpath("hint").exists()


def test_no_two_networks_of_a_teacher_have_the_same_seed() -> None:
    seeds = [member_seed(seed, number, n) for seed in range(10) for number in range(8) for n in range(1, 9)]
    assert len(set(seeds)) == len(seeds)
