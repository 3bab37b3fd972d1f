import csv
import os
import signal
from pathlib import Path

import pytest
import torch

from components.errors import SettingsError, TrainingError
from components.networks.contract import PredictionNetwork
from components.settings.distillation import DistillationSettings
from components.settings.network import CausalTransformerSettings
from components.settings.training import OptimizationSettings, TrainerSettings
from components.soft_labels.labels import SoftLabels
from components.tasks.next_item import NextItem
from components.tasks.ranking import NDCG
from components.training.fitting import FitResult, fit, initial_network, write_curves

OPTIMIZATION = OptimizationSettings(max_epochs=4, patience=4, batch_size=4, learning_rate=0.02)
TRAINER = TrainerSettings()


def trained(
    task: NextItem, shape: CausalTransformerSettings, optimization: OptimizationSettings = OPTIMIZATION, seed: int = 0
) -> tuple[PredictionNetwork, FitResult]:
    network = initial_network(shape, task.outcomes, seed)
    return network, fit(network, task, optimization, TRAINER, seed)


def same_weights(one: PredictionNetwork, other: PredictionNetwork) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


def validation_ndcg(task: NextItem, network: PredictionNetwork | None) -> float:
    """Of the network, or without one of popularity."""
    metric = NDCG(k=10)
    popularity = torch.from_numpy(task.outcome_counts.copy()).float()
    for batch in task.evaluation_batches("validation", 32):
        with torch.no_grad():
            scores = popularity.expand(len(batch.targets), -1) if network is None else network(*batch.inputs)
        metric.update(scores, batch.targets, batch.seen)
    return float(metric.compute())


def test_training_lowers_the_loss_and_beats_popularity(task: NextItem, shape: CausalTransformerSettings) -> None:
    network, result = trained(task, shape, OPTIMIZATION.model_copy(update={"max_epochs": 12, "patience": 12}))
    assert result.curve[-1].train_loss < result.curve[0].train_loss - 0.5
    assert validation_ndcg(task, network) > validation_ndcg(task, None) + 0.05


def test_the_network_ends_with_the_weights_of_its_best_epoch(task: NextItem, shape: CausalTransformerSettings) -> None:
    steps = [len(task.training_batches(4, seed=0, epoch=epoch)) for epoch in range(4)]
    taken = 0

    def spoil(network: PredictionNetwork) -> torch.Tensor:
        """From the third epoch on, all items are drawn to the same row."""
        nonlocal taken
        taken += 1
        assert network.head is not None
        return (network.head - 1).square().sum() * (1e4 if taken > sum(steps[:2]) else 0.0)

    network = initial_network(shape, task.outcomes, 0)
    constant = OPTIMIZATION.model_copy(update={"average_decay": 0, "learning_rate": 0.05})
    result = fit(network, task, constant, TRAINER, 0, extra_loss=spoil)
    assert taken == sum(steps)
    assert result.best == max(row.validation for row in result.curve[:2]) > result.curve[-1].validation
    assert validation_ndcg(task, network) == pytest.approx(result.best, abs=1e-6)
    assert not network.training


def test_training_stops_when_it_gets_no_better(task: NextItem, shape: CausalTransformerSettings) -> None:
    still = OPTIMIZATION.model_copy(update={"learning_rate": 1e-12, "max_epochs": 9, "patience": 2})
    assert trained(task, shape, still)[1].epochs == 3


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    one, other, third = (trained(task, shape, seed=seed)[0] for seed in (3, 3, 4))
    assert same_weights(one, other)
    assert not same_weights(one, third)


def test_random_draws_elsewhere_do_not_change_the_weights(task: NextItem, shape: CausalTransformerSettings) -> None:
    one, _ = trained(task, shape)
    torch.rand(17)
    other, _ = trained(task, shape)
    assert same_weights(one, other)


class Interruption:
    """An extra term of the loss that is 0, and that raises once ``steps`` steps are done."""

    def __init__(self, steps: int, error: BaseException | None) -> None:
        self.left, self.error = steps, error

    def __call__(self, network: PredictionNetwork) -> torch.Tensor:
        self.left -= 1
        if self.left < 0 and self.error is not None:
            raise self.error
        return torch.zeros(())


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_interrupted_training_resumes_to_the_weights_of_an_uninterrupted_one(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], epochs: int
) -> None:
    def run(error: BaseException | None, scratch: Path | None) -> tuple[PredictionNetwork, FitResult]:
        network = initial_network(shape, task.outcomes, 0)
        steps = sum(len(task.training_batches(4, seed=0, epoch=epoch)) for epoch in range(epochs)) + 2
        stop = Interruption(steps, error)
        return network, fit(network, task, OPTIMIZATION, TRAINER, 0, extra_loss=stop, scratch=scratch)

    whole, result = run(None, None)
    with pytest.raises(ZeroDivisionError):
        run(ZeroDivisionError(), tmp_path / "state")
    capsys.readouterr()
    resumed, again = run(None, tmp_path / "state")
    assert f"resumes after epoch {epochs}/4" in capsys.readouterr().out
    assert same_weights(whole, resumed)
    assert again == result


def test_a_finished_training_is_not_trained_again(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path
) -> None:
    first, second = (initial_network(shape, task.outcomes, 0) for _ in range(2))
    result = fit(first, task, OPTIMIZATION, TRAINER, 0, scratch=tmp_path)

    def count(network: PredictionNetwork) -> torch.Tensor:
        raise AssertionError("a step was taken")

    # The extra term belongs to what decides how a training goes, so that it starts anew with one.
    with pytest.raises(AssertionError):
        fit(second, task, OPTIMIZATION, TRAINER, 0, scratch=tmp_path / "other", extra_loss=count)
    assert fit(second, task, OPTIMIZATION, TRAINER, 0, scratch=tmp_path) == result
    assert same_weights(first, second)


def test_a_training_that_stopped_early_ends_the_same_when_it_is_run_again(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path
) -> None:
    still = OPTIMIZATION.model_copy(update={"learning_rate": 1e-12, "max_epochs": 9, "patience": 2})
    results = [
        fit(initial_network(shape, task.outcomes, 0), task, still, TRAINER, 0, scratch=tmp_path) for _ in range(2)
    ]
    assert results[0] == results[1] and results[0].epochs == 3


def test_the_state_of_another_training_is_never_resumed(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(initial_network(shape, task.outcomes, 0), task, OPTIMIZATION, TRAINER, 0, scratch=tmp_path)
    before = set(tmp_path.iterdir())
    changed = OPTIMIZATION.model_copy(update={"weight_decay": 0.5})
    for optimization, extra in ((changed, None), (OPTIMIZATION, {"sparsity_weight": 0.1})):
        network = initial_network(shape, task.outcomes, 0)
        fit(network, task, optimization, TRAINER, 0, scratch=tmp_path, extra_inputs=extra)
        assert "resumes" not in capsys.readouterr().out
        after = set(tmp_path.iterdir())
        assert len(after) == 1 and before.isdisjoint(after)
        before = after


def test_a_damaged_state_starts_the_training_anew(
    task: NextItem, shape: CausalTransformerSettings, tmp_path: Path
) -> None:
    whole, _ = trained(task, shape)
    fit(initial_network(shape, task.outcomes, 0), task, OPTIMIZATION, TRAINER, 0, scratch=tmp_path)
    (state,) = tmp_path.iterdir()
    state.write_bytes(state.read_bytes()[:-50])
    again = initial_network(shape, task.outcomes, 0)
    fit(again, task, OPTIMIZATION, TRAINER, 0, scratch=tmp_path)
    assert same_weights(whole, again)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_a_polite_kill_reach_the_stage_and_leave_the_handlers_as_they_were(
    task: NextItem, shape: CausalTransformerSettings, number: signal.Signals
) -> None:
    def kill(network: PredictionNetwork) -> torch.Tensor:
        os.kill(os.getpid(), number)
        return torch.zeros(())

    # As run_stage does.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            fit(initial_network(shape, task.outcomes, 0), task, OPTIMIZATION, TRAINER, 0, extra_loss=kill)
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "arguments", [{"presicion": "32-true"}, {"precision": "17-odd"}, {"accelerator": "abacus"}, {"devices": 0}]
)
def test_an_argument_that_lightning_refuses_is_an_error_that_names_where_it_stands(
    task: NextItem, shape: CausalTransformerSettings, arguments: dict[str, object]
) -> None:
    trainer = TrainerSettings.model_validate(arguments)
    with pytest.raises(SettingsError, match=r"scenarios\.shop\.trainer"):
        fit(initial_network(shape, task.outcomes, 0), task, OPTIMIZATION, trainer, 0, scenario="shop")


def test_a_misspelt_argument_of_the_trainer_is_told_the_nearest_one(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    trainer = TrainerSettings.model_validate({"limit_train_batch": 1})
    with pytest.raises(SettingsError, match="'limit_train_batches'"):
        fit(initial_network(shape, task.outcomes, 0), task, OPTIMIZATION, trainer, 0)


def test_arguments_of_the_trainer_reach_lightning(task: NextItem, shape: CausalTransformerSettings) -> None:
    network = initial_network(shape, task.outcomes, 0)
    steps = Interruption(100, AssertionError())
    trainer = TrainerSettings.model_validate({"limit_train_batches": 1, "precision": "bf16-mixed"})
    fit(network, task, OPTIMIZATION, trainer, 0, extra_loss=steps)
    assert steps.left == 96


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_training_and_says_when(
    task: NextItem, shape: CausalTransformerSettings, value: float
) -> None:
    def broken(network: PredictionNetwork) -> torch.Tensor:
        assert network.head is not None
        return network.head.sum() * value

    with pytest.raises(TrainingError, match=r"epoch 1, step 1(.|\n)*learning_rate"):
        fit(initial_network(shape, task.outcomes, 0), task, OPTIMIZATION, TRAINER, 0, extra_loss=broken)


def test_the_extra_term_is_of_the_network_in_training_and_pulls_on_it(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    def large(network: PredictionNetwork) -> torch.Tensor:
        assert network.head is not None
        return 100 * network.head.square().sum()

    network = initial_network(shape, task.outcomes, 0)
    fit(network, task, OPTIMIZATION, TRAINER, 0, extra_loss=large)
    free, _ = trained(task, shape)
    assert network.head.norm() < 0.5 * free.head.norm()


class FixedLabels:
    """Says the same of every point: one item, and little else."""

    def __init__(self, item: int, outcomes: int) -> None:
        self.item, self.outcomes = item, outcomes

    def labels(self, points: torch.Tensor) -> SoftLabels:
        rows = len(points)
        return SoftLabels(
            torch.full((rows, 1), self.item), torch.full((rows, 1), -0.1), torch.full((rows,), -2.35), self.outcomes
        )


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_student_learns_what_the_labels_say(
    task: NextItem, shape: CausalTransformerSettings, temperature: float
) -> None:
    network = initial_network(shape, task.outcomes, 0)
    settings = DistillationSettings(lambda_hard=0, lambda_soft=1, temperature=temperature)
    labels = FixedLabels(5, task.outcomes)
    result = fit(network, task, OPTIMIZATION, TRAINER, 0, labels=labels, distillation=settings)  # type: ignore[arg-type]
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    # The first epoch is the best, as far as the validation goes: labels like these do not help to rank.
    batch = next(task.evaluation_batches("validation", 50))
    with torch.no_grad():
        assert (network(*batch.inputs).argmax(1) == 5).all()


def test_a_large_catalogue_trains_with_a_sampled_softmax(task: NextItem, shape: CausalTransformerSettings) -> None:
    sampled = OPTIMIZATION.model_copy(update={"full_softmax_up_to": 10, "negatives": 24, "max_epochs": 8})
    network, result = trained(task, shape, sampled)
    full, _ = trained(task, shape, sampled.model_copy(update={"full_softmax_up_to": 1000}))
    assert not same_weights(network, full)
    assert result.curve[-1].train_loss < result.curve[0].train_loss
    assert validation_ndcg(task, network) > validation_ndcg(task, None)


def test_without_a_terminal_each_epoch_is_one_plain_line_and_nothing_else(
    task: NextItem, shape: CausalTransformerSettings, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    network = initial_network(shape, task.outcomes, 0)
    result = fit(network, task, OPTIMIZATION, TRAINER, 0, name="member-7", scratch=tmp_path)
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert len(lines) == 4 and captured.err == ""
    row = result.curve[1]
    assert lines[1].startswith(
        f"member-7 epoch 2/4 loss {row.train_loss:.3f} validation NDCG@10 {row.validation:.4f} (best "
    )
    assert lines[1].endswith("s left")
    assert not Path("lightning_logs").exists() and not Path("checkpoints").exists()


def test_curves_are_written_a_row_an_epoch(task: NextItem, shape: CausalTransformerSettings, tmp_path: Path) -> None:
    _, result = trained(task, shape)
    write_curves(tmp_path / "curves.csv", [result, result])
    with (tmp_path / "curves.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"] * 2
    assert set(rows[0]) == {"network", "epoch", "train_loss", "validation"}
    assert float(rows[2]["validation"]) == pytest.approx(result.curve[2].validation, abs=1e-6)
