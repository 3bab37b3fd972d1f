from collections.abc import Sequence

import numpy as np
import pytest
import torch

from components.compression.groups import Group
from components.compression.pruning import groups_to_cut, pruned
from components.compression.reconstruction import reconstructed
from components.compression.surgery import Kept, cut
from components.data.dataset import PreparedDataset
from components.networks.contract import PredictionNetwork
from components.settings.network import PerceptronSettings
from components.settings.pruning import PruningSettings
from components.settings.training import OptimizationSettings
from components.tasks.building import task_of
from components.training.fitting import initial_network
from components.training.module import SupervisedTraining
from tests.unit.compression.shaken import factorization, feed, inputs_of, shaken_network
from tests.unit.training.test_fitting import same_weights

INPUTS = [inputs_of(feed(32, 12, seed=seed)) for seed in range(8)]
UNSEEN = [inputs_of(feed(32, 12, seed=100))]


def half(network: PredictionNetwork, *kinds: str) -> tuple[list[Group], Kept]:
    """The second half of the units of all groups of these kinds stays."""
    groups = [group for group in network.groups if group.kind in kinds]
    return groups, {group.name: torch.arange(group.units // 2, group.units) for group in groups}


def distance(one: PredictionNetwork, other: PredictionNetwork, inputs: Sequence[tuple[torch.Tensor, ...]]) -> float:
    with torch.inference_mode():
        return sum(float((one(*each) - other(*each)).square().mean()) for each in inputs) / len(inputs)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "kinds", [("ffn",), ("heads",), ("head_width",), ("width",), ("ffn", "heads"), ("heads", "head_width", "width")]
)
def test_what_is_left_comes_nearer_to_the_original(kinds: tuple[str, ...], tied: bool) -> None:
    network = shaken_network(dim=32, heads=4, ffn_dim=64, tied=tied)
    groups, kept = half(network, *kinds)
    smaller = cut(network, groups, kept)
    before = smaller.state_dict()
    fitted = reconstructed(network, smaller, groups, kept, INPUTS)
    assert distance(network, fitted, UNSEEN) < 0.9 * distance(network, smaller, UNSEEN)
    assert all(torch.equal(before[name], weight) for name, weight in smaller.state_dict().items())
    assert same_weights(fitted, reconstructed(network, smaller, groups, kept, INPUTS))


def test_a_layer_gets_the_weights_of_the_least_squares(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy, for the last layer that reads something cut: all before it are as they will be."""
    monkeypatch.setattr("components.compression.reconstruction._RIDGE", 0.0)
    network = shaken_network(dim=32, heads=4, ffn_dim=64, blocks=1)
    groups, kept = half(network, "ffn")
    fitted = reconstructed(network, cut(network, groups, kept), groups, kept, INPUTS)
    read, wanted = [], []
    fitted.blocks[0].ffn_out.register_forward_hook(lambda _, given, __: read.append(given[0].flatten(0, -2).numpy()))
    network.blocks[0].ffn_out.register_forward_hook(lambda _, __, given: wanted.append(given.flatten(0, -2).numpy()))
    distance(network, fitted, INPUTS)
    inputs = np.concatenate(read).astype(np.float64)
    solved = np.linalg.lstsq(np.c_[inputs, np.ones(len(inputs))], np.concatenate(wanted), rcond=None)[0]
    np.testing.assert_allclose(fitted.blocks[0].ffn_out.weight.detach().numpy().T, solved[:-1], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.blocks[0].ffn_out.bias.detach().numpy(), solved[-1], rtol=1e-3, atol=1e-4)


def test_channels_that_say_the_same_as_those_that_stay_are_made_up_for() -> None:
    network = shaken_network(dim=32, ffn_dim=64)
    with torch.no_grad():
        for block in network.blocks:
            block.ffn_in.weight[:32], block.ffn_in.bias[:32] = block.ffn_in.weight[32:], block.ffn_in.bias[32:]
    groups, kept = half(network, "ffn")
    smaller = cut(network, groups, kept)
    fitted = reconstructed(network, smaller, groups, kept, INPUTS)
    assert distance(network, fitted, UNSEEN) < 1e-4 * distance(network, smaller, UNSEEN)


def test_layers_whose_own_channels_are_cut_too_are_fitted_to_those_that_stay() -> None:
    sizes = {"mean": [0.0] * 10, "scale": [1.0] * 10}
    network = initial_network(PerceptronSettings(kind="perceptron", hidden=(32, 24)), 5, 0, sizes).eval()
    random = torch.Generator().manual_seed(0)
    *inputs, unseen = [(torch.randn(64, 10, generator=random),) for _ in range(9)]
    groups, kept = half(network, "ffn")
    smaller = cut(network, groups, kept)
    fitted = reconstructed(network, smaller, groups, kept, inputs)
    assert distance(network, fitted, [unseen]) < 0.5 * distance(network, smaller, [unseen])


def test_without_a_layer_that_reads_what_was_cut_nothing_changes() -> None:
    network = factorization()
    groups, kept = half(network, "width")
    smaller = cut(network, groups, kept)
    assert same_weights(reconstructed(network, smaller, groups, kept, []), smaller)
    whole = shaken_network()
    all_kept = {group.name: torch.arange(group.units) for group in whole.groups}
    assert same_weights(reconstructed(whole, whole, whole.groups, all_kept, INPUTS), whole)


def test_the_settings_ask_for_it(prepared: PreparedDataset) -> None:
    network, task = shaken_network(prepared.items, max_length=8, dim=32), task_of("next_item", prepared, 8)
    judge = SupervisedTraining(network, OptimizationSettings(), 0, task=task).eval()
    found = [
        pruned(network, groups_to_cut(network, settings), settings, task=task, loss=judge.loss_sum, seed=0)
        for settings in (PruningSettings(calibration_batches=2, reconstruction=wanted) for wanted in (False, True))
    ]
    assert all(result.mask_difference <= 1e-6 for result in found)
    assert all(torch.equal(found[0].kept[name], found[1].kept[name]) for name in found[0].kept)
    batches = [batch.inputs for batch in task.scoring_batches(0, task.points, 4096)]
    assert distance(network, found[1].network, batches) < distance(network, found[0].network, batches)
