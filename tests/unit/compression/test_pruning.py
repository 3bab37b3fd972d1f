from typing import get_args

import pytest
import torch

from components.compression.cost import multiply_adds
from components.compression.pruning import counts_to_keep, groups_to_cut, pruned, validation_quality
from components.data.dataset import PreparedDataset
from components.errors import SettingsError
from components.networks.contract import PredictionNetwork
from components.settings.base import validated
from components.settings.pruning import PruningSettings
from components.settings.training import OptimizationSettings
from components.tasks.building import task_of
from components.training.module import SupervisedTraining
from tests.unit.compression.shaken import shaken_network

CRITERIA = get_args(PruningSettings.model_fields["importance"].annotation)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["ffn", "heads", "head_width", "width"])
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


def test_a_part_may_have_a_ratio_of_its_own() -> None:
    network = shaken_network(dim=32, heads=4, ffn_dim=32)
    settings = PruningSettings(ffn_ratio=0.5, ratios={"blocks.1.ffn": 0.75, "blocks.0.heads": 0.25, "blocks.0.ffn": 0})
    groups = groups_to_cut(network, settings)
    scores = {group.name: torch.rand(group.units) for group in groups}
    counts = counts_to_keep(network, groups, scores, settings, student=network)
    assert counts == {"blocks.0.heads": 3, "blocks.1.ffn": 8}


def test_a_part_that_the_network_has_not_is_told_the_nearest_one() -> None:
    with pytest.raises(SettingsError, match=r"'blocks.0.fnn', which is no part .*'blocks.0.ffn'"):
        groups_to_cut(shaken_network(), PruningSettings(ffn_ratio=0, ratios={"blocks.0.fnn": 0.5}))


def test_in_steps_as_much_of_the_student_goes_each_time() -> None:
    network = shaken_network(blocks=1, ffn_dim=64)
    settings = PruningSettings(ffn_ratio=0.75, steps=3)
    (group,) = groups_to_cut(network, settings)
    scores = {group.name: torch.rand(group.units)}
    wanted = [
        counts_to_keep(network, [group], scores, settings, student=network, share=share)[group.name]
        for share in (1 / 3, 2 / 3, 1)
    ]
    assert wanted == [48, 32, 16]


def test_parts_compete_for_what_a_request_costs(prepared: PreparedDataset) -> None:
    network = shaken_network(dim=32, heads=4, ffn_dim=64)
    settings = PruningSettings(multiply_adds_share=0.8)
    groups = groups_to_cut(network, settings)
    assert {group.kind for group in groups} == {"ffn", "heads"}
    for cheap, whole in (("ffn", 64), ("heads", 4)):
        scores = {group.name: torch.full((group.units,), 1.0 if group.kind == cheap else 1e6) for group in groups}
        counts = counts_to_keep(network, groups, scores, settings, student=network)
        # The last block computes one position: to cut there saves next to nothing.
        assert counts[f"blocks.1.{cheap}"] == whole > counts[f"blocks.0.{cheap}"]
        assert all(counts[group.name] == group.units for group in groups if group.kind != cheap), "worth too much"

    task = task_of("next_item", prepared, 8)
    student = shaken_network(prepared.items, max_length=8, dim=32, heads=4, ffn_dim=64)
    for importance in ("magnitude", "taylor"):
        own = settings.model_copy(update={"importance": importance, "calibration_batches": 2})
        judge = SupervisedTraining(student, OptimizationSettings(), 0, task=task).eval()
        result = pruned(student, groups, own, task=task, loss=judge.loss_sum, seed=0)
        assert result.mask_difference <= 1e-6
        share = multiply_adds(result.network.record()) / multiply_adds(student.record())
        assert 0.6 < share <= 0.8, importance


def test_a_cost_out_of_reach_is_refused_with_the_least_that_can_be_reached() -> None:
    with pytest.raises(SettingsError, match=r"0\.01, and with everything cut .* still needs 0\.\d+ "):
        groups_to_cut(shaken_network(), PruningSettings(multiply_adds_share=0.01))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"multiply_adds_share": 0.5, "ffn_ratio": 0.5}, "multiply_adds_share and ffn_ratio say how much goes"),
        ({"multiply_adds_share": 0.5, "ratios": {"blocks.0.ffn": 0.5}}, "multiply_adds_share and ratios"),
        ({"steps": 7}, r"steps \(7\) is more than optimization.max_epochs \(6\)"),
        ({"ratios": {"blocks.0.ffn": 1.5}}, "the share of blocks.0.ffn that is removed must be"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, object], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        validated(PruningSettings, given, "scenarios.shop.pruning")
