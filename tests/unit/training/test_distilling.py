"""The terms of a distillation in training: what each adds, what is trained beside the network, how it is weighed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import SettingsError
from components.networks.causal_transformer import CausalTransformer
from components.networks.contract import PredictionNetwork
from components.settings.distillation import DistillationSettings
from components.settings.network import CausalTransformerSettings
from components.settings.soft_labels import SoftLabelSettings
from components.settings.training import OptimizationSettings, TrainerSettings
from components.soft_labels.reader import SoftLabelReader
from components.soft_labels.writer import write_cache
from components.storage.folder_store import FolderStore
from components.tasks.next_item import NextItem
from components.training.distilling import DistillationTraining
from components.training.fitting import FitResult, fit, initial_network
from components.training.losses.distributions import divergence
from components.training.losses.hidden import hint

OPTIMIZATION = OptimizationSettings(max_epochs=3, patience=3, batch_size=4, learning_rate=0.02)
HARD = {"kind": "cross_entropy", "weight": 0.3}
KINDS: list[dict[str, Any]] = [
    {"kind": "cross_entropy"},
    {"kind": "sampled_cross_entropy", "negatives": 20},
    {"kind": "divergence", "temperature": 2.0},
    {"kind": "sampled_divergence", "negatives": 20},
    {"kind": "standardised_divergence"},
    {"kind": "decoupled_divergence", "beta": 2.0},
    {"kind": "correlation"},
    {"kind": "relaxed_ranking", "interesting": 3, "among": 8, "uninteresting": 10},
    {"kind": "rejuvenated_cross_entropy", "k": 5, "sampled": 5, "among": 20},
    {"kind": "hint"},
    {"kind": "topology", "points": 16},
]


@pytest.fixture
def cache(task: NextItem, shape: CausalTransformerSettings, tmp_path: Path) -> SoftLabelReader:
    return cached(task, shape, tmp_path, SoftLabelSettings(codec="top_k_tail", k=12, hidden_states=True))


def cached(
    task: NextItem, shape: CausalTransformerSettings, folder: Path, settings: SoftLabelSettings
) -> SoftLabelReader:
    """The labels of a teacher that has learned a little."""
    store = FolderStore(folder / "store")
    teacher = initial_network(shape.model_copy(update={"dim": 24, "max_length": task.max_length}), task.outcomes, 9)
    fit(teacher, task, OPTIMIZATION, TrainerSettings(), 9)
    digests = {"teacher_digest": "a" * 64, "dataset_digest": task.dataset.digest}
    manifest = write_cache(store, teacher, task, settings, **digests, show=False, workers=1)
    return SoftLabelReader(store, manifest, folder / "cache")


def module_of(
    task: NextItem, shape: CausalTransformerSettings, labels: SoftLabelReader, losses: list[dict[str, Any]]
) -> DistillationTraining:
    network = initial_network(shape, task.outcomes, 0).eval()
    settings = DistillationSettings(losses=losses)
    return DistillationTraining(network, OPTIMIZATION, 0, labels=labels, distillation=settings, task=task)


def trained(
    task: NextItem, shape: CausalTransformerSettings, labels: SoftLabelReader, settings: DistillationSettings
) -> tuple[PredictionNetwork, FitResult]:
    network = initial_network(shape, task.outcomes, 0)
    return network, fit(network, task, OPTIMIZATION, TrainerSettings(), 0, labels=labels, distillation=settings)


def loss_of(module: DistillationTraining, task: NextItem) -> float:
    torch.manual_seed(0)
    return float(module.loss_sum(task.training_batches(4, seed=0, epoch=0)[0]).detach())


def test_the_two_forms_of_the_plain_loss_train_bit_for_bit_alike(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    short, curve = trained(task, shape, cache, DistillationSettings(lambda_hard=0.3, lambda_soft=0.7, temperature=2.0))
    losses = [HARD, {"kind": "divergence", "weight": 0.7, "temperature": 2.0}]
    long, other = trained(task, shape, cache, DistillationSettings(losses=losses))
    assert curve.curve == other.curve
    assert all(torch.equal(a, b) for a, b in zip(short.state_dict().values(), long.state_dict().values(), strict=True))


@pytest.mark.parametrize("loss", KINDS, ids=lambda loss: loss["kind"])
def test_each_kind_trains_to_finite_weights_and_pulls_on_the_network(
    loss: dict[str, Any], task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    with_it, result = trained(task, shape, cache, DistillationSettings(losses=[HARD, {**loss, "weight": 0.5}]))
    without, _ = trained(task, shape, cache, DistillationSettings(losses=[HARD]))
    assert all(tensor.isfinite().all() for tensor in with_it.state_dict().values())
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    assert with_it.state_dict().keys() == without.state_dict().keys()
    assert not torch.equal(with_it.head, without.head)


@pytest.mark.parametrize("codec", ["dense", "sampled", "top_k_sampled"])
def test_the_kinds_that_a_codec_is_good_for_train_on_it(
    codec: str, task: NextItem, shape: CausalTransformerSettings, tmp_path: Path
) -> None:
    labels = cached(task, shape, tmp_path, SoftLabelSettings(codec=codec, k=24, head=12, hidden_states=True))
    taken = []
    for loss in KINDS:
        try:
            module = module_of(task, shape, labels, [HARD, loss])
        except SettingsError:
            continue
        taken.append(loss["kind"])
        assert abs(loss_of(module, task)) < 1e6
    left = {
        "dense": {"sampled_divergence"},
        "top_k_sampled": {"decoupled_divergence", "correlation", "rejuvenated_cross_entropy"},
        "sampled": {
            "standardised_divergence",
            "decoupled_divergence",
            "correlation",
            "relaxed_ranking",
            "rejuvenated_cross_entropy",
        },
    }
    assert {loss["kind"] for loss in KINDS} - set(taken) == left[codec]


def test_terms_add_up_by_their_weights(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    soft = {"kind": "divergence", "temperature": 2.0}
    other = {"kind": "decoupled_divergence"}
    parts = [loss_of(module_of(task, shape, cache, [{**loss, "weight": 1.0}]), task) for loss in (HARD, soft, other)]
    losses = [HARD, {**soft, "weight": 0.5}, {**other, "weight": 2.0}]
    whole = loss_of(module_of(task, shape, cache, losses), task)
    assert whole == pytest.approx(0.3 * parts[0] + 0.5 * parts[1] + 2.0 * parts[2], rel=1e-5)
    twice = module_of(task, shape, cache, [{**soft, "weight": 0.5}, {**soft, "weight": 0.5}])
    assert loss_of(twice, task) == pytest.approx(parts[1], rel=1e-5)


def test_a_schedule_decides_by_how_far_the_training_is(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    schedule = {"kind": "linear", "first": 0.0, "last": 1.0, "begin": 0.5, "end": 1.0}
    for loss in ({"kind": "divergence", "weight": 0.7}, {"kind": "correlation", "weight": 0.7}):
        hard = loss_of(module_of(task, shape, cache, [HARD]), task)
        full = loss_of(module_of(task, shape, cache, [HARD, loss]), task)
        module = module_of(task, shape, cache, [HARD, {**loss, "schedule": schedule}])
        found = []
        for done in (0.2, 0.75, 1.0):
            module.done = done
            found.append(loss_of(module, task))
        assert found == pytest.approx([hard, (hard + full) / 2, full], rel=1e-5)


def test_the_auxiliary_head_alone_learns_from_the_teacher(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    """With an untied table, so that what reaches the served head does so through its own logits."""
    untied = shape.model_copy(update={"tied": False})
    soft = {"kind": "divergence", "weight": 0.7, "head": "auxiliary"}
    module = module_of(task, untied, cache, [HARD, soft])
    alone = module_of(task, untied, cache, [HARD])
    batch = task.training_batches(4, seed=0, epoch=0)[0]
    for one in (module, alone):
        one.loss_sum(batch).backward()
    torch.testing.assert_close(module.network.head.grad, alone.network.head.grad)
    assert not torch.allclose(module.network.blocks[0].ffn_in.weight.grad, alone.network.blocks[0].ffn_in.weight.grad)
    assert module.companions.head.grad.abs().sum() > 0
    assert torch.equal(module.companions.head, module.network.head)


def test_what_is_trained_beside_the_network_is_trained_and_left_behind(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    losses = [HARD, {"kind": "divergence", "head": "auxiliary"}, {"kind": "hint", "weight": 0.5}]
    module = module_of(task, shape, cache, losses)
    trained_with = {id(parameter) for parameter in module.trained_parameters()}
    assert {id(parameter) for parameter in module.companions.parameters()} <= trained_with
    assert [tuple(one.shape) for one in module.companions.parameters()] == [(task.outcomes, 16), (24, 16), (24,)]
    network, _ = trained(task, shape, cache, DistillationSettings(losses=losses))
    assert network.state_dict().keys() == initial_network(shape, task.outcomes, 0).state_dict().keys()
    plain = module_of(task, shape, cache, [HARD])
    assert not list(plain.companions.parameters())


def test_what_judges_the_served_network_leaves_companions_out(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    batch = task.training_batches(4, seed=0, epoch=0)[0]
    served = [HARD, {"kind": "decoupled_divergence"}]
    whole = [*served, {"kind": "hint"}, {"kind": "divergence", "head": "auxiliary"}]
    module = module_of(task, shape, cache, whole)
    expected = module_of(task, shape, cache, served).loss_sum(batch)
    torch.testing.assert_close(module.served_loss_sum(batch), expected)
    assert loss_of(module, task) > float(expected.detach())


def test_a_hint_is_of_the_cached_hidden_states(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    module = module_of(task, shape, cache, [HARD, {"kind": "hint", "weight": 2.0}])
    batch = task.training_batches(4, seed=0, epoch=0)[0]
    labels = cache.labels(batch.points)
    hidden = module.network.encode(*batch.inputs)
    expected = hint(hidden @ module.companions.regressor.weight.T + module.companions.regressor.bias, labels.hidden)
    without = module_of(task, shape, cache, [HARD]).loss_sum(batch)
    torch.testing.assert_close(module.loss_sum(batch) - without, 2.0 * expected.sum())


def test_a_network_without_a_linear_head_gets_the_same_loss(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = module_of(task, shape, cache, [HARD, {"kind": "divergence"}, {"kind": "correlation"}])
    expected = loss_of(module, task)
    monkeypatch.setattr(type(module.network), "head", None)
    monkeypatch.setattr(module.network, "score", lambda hidden: hidden @ module.network.item.weight.T, raising=True)
    assert loss_of(module, task) == pytest.approx(expected, rel=1e-5)


def test_what_a_network_or_the_outcomes_are_not_enough_for_is_told_before_the_first_step(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = cached(task, shape, tmp_path / "dense", SoftLabelSettings(codec="dense"))
    for long in (
        {"kind": "relaxed_ranking", "among": task.outcomes + 1},
        {"kind": "rejuvenated_cross_entropy", "k": task.outcomes + 1, "among": task.outcomes + 1},
    ):
        with pytest.raises(SettingsError, match=f"there are {task.outcomes} in all"):
            module_of(task, shape, dense, [HARD, long])
    listed = cached(task, shape, tmp_path / "listed", SoftLabelSettings(codec="top_k_tail", k=12))
    monkeypatch.setattr(CausalTransformer, "head", None)
    for sampled in ("sampled_cross_entropy", "sampled_divergence"):
        with pytest.raises(SettingsError, match=rf"losses\.1' \({sampled}\) scores a sample"):
            module_of(task, shape, listed, [HARD, {"kind": sampled}])


def test_an_interrupted_training_with_companions_resumes_to_the_same_weights(
    task: NextItem,
    shape: CausalTransformerSettings,
    cache: SoftLabelReader,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = [HARD, {"kind": "divergence", "head": "auxiliary"}, {"kind": "hint"}, KINDS[7]]
    settings = DistillationSettings(losses=losses)
    expected, _ = trained(task, shape, cache, settings)

    def begun(stop_at: int | None) -> PredictionNetwork:
        network = initial_network(shape, task.outcomes, 0)
        step = DistillationTraining.training_step

        def interrupted(self: DistillationTraining, batch: Any, index: int) -> torch.Tensor:
            if self.current_epoch == stop_at:
                raise KeyboardInterrupt
            return step(self, batch, index)

        with monkeypatch.context() as patch:
            patch.setattr(DistillationTraining, "training_step", interrupted)
            fit(
                network,
                task,
                OPTIMIZATION,
                TrainerSettings(),
                0,
                labels=cache,
                distillation=settings,
                scratch=tmp_path / "scratch",
            )
        return network

    with pytest.raises(KeyboardInterrupt):
        begun(stop_at=2)
    resumed = begun(stop_at=None)
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name]), name


def test_a_student_comes_nearer_to_its_teacher_with_a_divergence(
    task: NextItem, shape: CausalTransformerSettings, cache: SoftLabelReader
) -> None:
    batch = task.training_batches(64, seed=0, epoch=0)[0]
    labels = cache.labels(batch.points)

    def distance(losses: list[dict[str, Any]]) -> float:
        network, _ = trained(task, shape, cache, DistillationSettings(losses=losses))
        with torch.no_grad():
            return float(divergence(network(*batch.inputs), labels).mean())

    assert distance([HARD, {"kind": "divergence", "weight": 2.0}]) < distance([HARD])


def test_the_cache_is_checked_before_anything_is_trained(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path
) -> None:
    labels = cached(task, shape, tmp_path, SoftLabelSettings(codec="sampled", k=8))
    network = initial_network(shape, task.outcomes, 0)
    settings = DistillationSettings(losses=[HARD, {"kind": "hint"}])
    with pytest.raises(SettingsError, match=r"'scenarios\.shop\.distillation\.losses\.1' \(hint\)"):
        fit(
            network,
            task,
            OPTIMIZATION,
            TrainerSettings(),
            0,
            labels=labels,
            distillation=settings,
            scenario="shop",
        )
