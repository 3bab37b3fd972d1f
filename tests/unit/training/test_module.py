import pytest
import torch

from components.settings.network import CausalTransformerSettings
from components.settings.training import OptimizationSettings
from components.tasks.next_item import NextItem
from components.training.data import ValidationBatch
from components.training.fitting import initial_network
from components.training.module import SupervisedTraining


def test_matrices_decay_and_biases_and_norms_do_not(task: NextItem, shape: CausalTransformerSettings) -> None:
    network = initial_network(shape, task.outcomes, 0)
    module = SupervisedTraining(network, OptimizationSettings(weight_decay=0.3), 0, task=task)
    module._trainer = type("Trainer", (), {"precision": "32-true"})()
    decaying, others = module.configure_optimizers().param_groups
    assert decaying["weight_decay"] == 0.3 and others["weight_decay"] == 0.0
    assert all(parameter.ndim == 2 for parameter in decaying["params"])
    # The average of the weights is not trained.
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(parameter)] for parameter in [*decaying["params"], *others["params"]]} == set(names.values())
    assert all("norm" in names[id(parameter)] or "bias" in names[id(parameter)] for parameter in others["params"])


def test_a_step_on_two_devices_adds_up_to_the_step_on_one(task: NextItem, shape: CausalTransformerSettings) -> None:
    """Lightning averages the gradients of the devices; that must be the gradient of the mean over all points."""
    gradients = []
    for world in (1, 2, 5):
        total = None
        for rank in range(world):
            network = initial_network(shape, task.outcomes, 0).eval()
            module = SupervisedTraining(network, OptimizationSettings(), 0, task=task)
            module._trainer = type("Trainer", (), {"world_size": world})()
            batch = task.training_batches(3, seed=0, epoch=0, rank=rank, world=world)[0]
            module.training_step(batch, 0).backward()
            gradient = torch.cat([parameter.grad.flatten() for parameter in network.parameters()]) / world
            total = gradient if total is None else total + gradient
        gradients.append(total)
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def test_the_kept_weights_are_a_moving_average_that_forgets_its_start_sooner(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    network = initial_network(shape, task.outcomes, 0)
    module = SupervisedTraining(network, OptimizationSettings(average_decay=0.4), 0, task=task)
    averages = []
    for value in (0.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        torch.nn.init.constant_(network.head, value)
        module.on_train_batch_end(None, next(iter(task.training_batches(1, seed=0, epoch=0))), 0)
        averages.append(float(module.kept_network.head.mean()))
    expected = [0.0]
    for steps in range(1, 6):
        decay = min(0.4, (1 + steps) / (10 + steps))
        expected.append(decay * expected[-1] + (1 - decay))
    assert averages == pytest.approx(expected)
    assert expected[-1] - expected[-2] == pytest.approx(0.6 * (1 - expected[-2]))


def test_a_batch_that_another_device_counts_leaves_the_figure_alone(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    module = SupervisedTraining(initial_network(shape, task.outcomes, 0), OptimizationSettings(), 0, task=task)
    first, second = list(task.evaluation_batches("validation", 30))
    module.validation_step(ValidationBatch(first, True), 0)
    before = module.validation_metric.compute()
    module.validation_step(ValidationBatch(second, False), 1)
    assert module.validation_metric.compute() == before
    module.validation_step(ValidationBatch(second, True), 1)
    assert module.validation_metric.compute() != before


def test_without_an_average_the_network_itself_is_kept(task: NextItem, shape: CausalTransformerSettings) -> None:
    network = initial_network(shape, task.outcomes, 0)
    module = SupervisedTraining(network, OptimizationSettings(average_decay=0), 0, task=task)
    assert module.kept_network is network


def test_dropout_differs_between_epochs_and_devices_and_repeats_for_the_same(
    task: NextItem, shape: CausalTransformerSettings
) -> None:
    module = SupervisedTraining(initial_network(shape, task.outcomes, 0), OptimizationSettings(), 0, task=task)

    def draw(epoch: int, rank: int) -> float:
        module._trainer = type("Trainer", (), {"current_epoch": epoch, "global_rank": rank})()
        module.on_train_epoch_start()
        return float(torch.rand(()))

    assert len({draw(0, 0), draw(1, 0), draw(0, 1)}) == 3
    assert draw(1, 0) == draw(1, 0)
