import pytest
import torch

from components.compression.groups import Group, prunable_groups
from components.compression.importance import chance, group_lasso, magnitude, taylor
from components.data.dataset import PreparedDataset
from components.networks.contract import PredictionNetwork
from components.tasks.batch import Batch
from components.tasks.building import task_of
from tests.unit.compression.shaken import shaken_network


@pytest.fixture
def network() -> PredictionNetwork:
    return shaken_network(48, max_length=8)


@pytest.fixture
def ffn(network: PredictionNetwork) -> Group:
    return prunable_groups(network)[0]


@pytest.fixture
def batches(prepared: PreparedDataset) -> list[Batch]:
    return list(task_of("next_item", prepared, 8).training_batches(16, seed=0, epoch=0))[:3]


def test_magnitude_is_the_norm_of_all_weights_of_a_unit(network: PredictionNetwork, ffn: Group) -> None:
    weights = network.state_dict()
    unit = [weights["blocks.0.ffn_in.weight"][5], weights["blocks.0.ffn_in.bias"][5:6]]
    unit.append(weights["blocks.0.ffn_out.weight"][:, 5])
    torch.testing.assert_close(magnitude(network, [ffn])[ffn.name][5], torch.cat(unit).norm())


def test_taylor_foretells_what_the_loss_does_when_a_unit_shrinks(
    network: PredictionNetwork, batches: list[Batch]
) -> None:
    def loss(batch: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(network(*batch.inputs), batch.targets)

    for group in prunable_groups(network):
        (found,) = taylor(network, [group], batches[:1], loss).values()
        share = 1e-2
        with torch.no_grad():
            before = loss(batches[0])
            for part in group.slices:
                parameter = network.get_parameter(part.parameter)
                places = part.indices(torch.tensor([1]), parameter, group.units)
                parameter.index_copy_(part.axis, places, parameter.index_select(part.axis, places) * (1 - share))
            change = float((loss(batches[0]) - before).abs() / share)
        assert change == pytest.approx(float(found[1]), rel=0.15, abs=2e-3)


def test_taylor_leaves_weights_and_no_gradients(network: PredictionNetwork, ffn: Group, batches: list[Batch]) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    taylor(network, [ffn], batches, lambda batch: network(*batch.inputs).logsumexp(1).sum())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_chance_depends_on_the_seed_alone(ffn: Group) -> None:
    assert torch.equal(chance([ffn], 3)[ffn.name], chance([ffn], 3)[ffn.name])
    assert not torch.equal(chance([ffn], 3)[ffn.name], chance([ffn], 4)[ffn.name])


def test_group_lasso_is_the_weighted_sum_of_norms(network: PredictionNetwork) -> None:
    groups = prunable_groups(network)
    plain = 0.0
    for group in groups:
        parameters = [network.get_parameter(part.parameter) for part in group.slices]
        values = sum(parameter.numel() for parameter in parameters) / group.units
        plain += float(values**0.5 * magnitude(network, [group])[group.name].sum().detach())
    assert float(group_lasso(groups, 0.5)(network).detach()) == pytest.approx(0.5 * plain, rel=1e-5)


def test_group_lasso_drives_whole_units_to_zero(network: PredictionNetwork, ffn: Group) -> None:
    penalty = group_lasso([ffn], 1.0)
    with torch.no_grad():
        network.get_parameter("blocks.0.ffn_in.weight")[3] = 0
        network.get_parameter("blocks.0.ffn_in.bias")[3] = 0
        network.get_parameter("blocks.0.ffn_out.weight")[:, 3] = 0
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        penalty(network).backward()
        assert torch.isfinite(network.get_parameter("blocks.0.ffn_in.weight").grad).all()
        optimizer.step()
    norms = magnitude(network, [ffn])[ffn.name]
    assert norms.max() < 0.1
