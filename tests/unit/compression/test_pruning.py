from typing import get_args

import pytest
import torch

from components.compression.pruning import groups_to_cut, pruned, validation_quality
from components.data.dataset import PreparedDataset
from components.networks.contract import PredictionNetwork
from components.settings.pruning import PruningSettings
from components.settings.training import OptimizationSettings
from components.tasks.building import task_of
from components.training.module import SupervisedTraining
from tests.unit.compression.shaken import shaken_network

CRITERIA = get_args(PruningSettings.model_fields["importance"].annotation)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["ffn", "heads", "width"])
@pytest.mark.parametrize("importance", CRITERIA)
def test_every_criterion_and_kind_is_mask_equivalent(
    prepared: PreparedDataset, importance: str, kind: str, tied: bool
) -> None:
    network = shaken_network(prepared.items, max_length=8, tied=tied, dim=32, heads=4, blocks=1)
    task = task_of("next_item", prepared, 8)
    settings = PruningSettings(importance=importance, calibration_batches=2, **{"ffn_ratio": 0, f"{kind}_ratio": 0.5})
    judge = SupervisedTraining(network, OptimizationSettings(), 0, task=task)
    judge.eval()
    groups = groups_to_cut(network, settings)
    result = pruned(network, groups, settings, task=task, loss=judge.loss_sum, seed=0)
    again = pruned(network, groups, settings, task=task, loss=judge.loss_sum, seed=0)
    assert {group.kind for group in groups} == {kind}
    assert result.mask_difference <= 1e-6
    assert all(2 * len(result.kept[group.name]) in (group.units, group.units + 8) for group in groups)
    assert all(torch.equal(result.kept[name], again.kept[name]) for name in result.kept)
    assert 0 <= validation_quality(result.network, task) <= 1


def test_nothing_is_to_be_cut_when_all_ratios_are_zero() -> None:
    network: PredictionNetwork = shaken_network()
    assert groups_to_cut(network, PruningSettings(ffn_ratio=0)) == []
