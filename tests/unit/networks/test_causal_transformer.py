from pathlib import Path

import pytest
import torch

from components.errors import IntegrityError, SettingsError
from components.networks.building import network_of, new_network, read_network, write_network
from components.networks.contract import PredictionNetwork
from components.settings.network import CausalTransformerSettings
from components.settings.top_n_network import TwoTowerSettings
from components.tasks.batch import ITEM_FEATURES
from tests.unit.compression.shaken import item_features

SETTINGS = CausalTransformerSettings(dim=8, blocks=2, heads=2, ffn_dim=12, max_length=9, dropout=0.5)


@pytest.fixture
def network() -> PredictionNetwork:
    torch.manual_seed(0)
    return new_network(SETTINGS, 20).eval()


def test_padding_on_the_right_changes_no_logit_at_a_valid_position(network: PredictionNetwork) -> None:
    items = torch.randint(0, 20, (3, 5))
    valid = torch.tensor([0, 3, 5, 14])
    padded = torch.cat([items, torch.full((3, 4), 7)], dim=1)
    moved = torch.tensor([0, 3, 9, 22])
    torch.testing.assert_close(network(padded, moved), network(items, valid), rtol=0, atol=1e-6)


def test_a_later_event_changes_no_earlier_logit(network: PredictionNetwork) -> None:
    items = torch.randint(0, 20, (1, 6))
    changed = items.clone()
    changed[0, 4] = (changed[0, 4] + 1) % 20
    before, after = (network(history, torch.arange(6)) for history in (items, changed))
    torch.testing.assert_close(before[:4], after[:4])
    assert not torch.allclose(before[4], after[4]) and not torch.allclose(before[5], after[5])


def test_dropout_acts_in_training_only(network: PredictionNetwork) -> None:
    items, valid = torch.randint(0, 20, (2, 5)), torch.arange(10)
    assert torch.equal(network(items, valid), network(items, valid))
    network.train()
    assert not torch.equal(network(items, valid), network(items, valid))


@pytest.mark.parametrize("tied", [True, False])
def test_the_head_scores_what_score_scores(tied: bool) -> None:
    network = new_network(SETTINGS.model_copy(update={"tied": tied}), 20)
    hidden = torch.randn(4, 8)
    assert network.head is not None
    assert torch.equal(network.score(hidden), hidden @ network.head.T)
    assert (network.head is network.item.weight) == tied


def test_a_network_is_rebuilt_from_its_record_and_weights(network: PredictionNetwork, tmp_path: Path) -> None:
    write_network(tmp_path, network)
    again = read_network(tmp_path)
    items, valid = torch.randint(0, 20, (2, 9)), torch.arange(18)
    assert again.record() == network.record()
    assert torch.equal(again(items, valid), network(items, valid))


def described(items: int = 20, **changes: object) -> PredictionNetwork:
    torch.manual_seed(0)
    return new_network(SETTINGS.model_copy(update=changes), items, {ITEM_FEATURES: item_features(items)}).eval()


@pytest.mark.parametrize("tied", [True, False])
def test_features_of_items_are_rebuilt_with_the_weights(tied: bool, tmp_path: Path) -> None:
    network = described(tied=tied)
    write_network(tmp_path, network)
    again = read_network(tmp_path)
    items, valid = torch.randint(0, 20, (2, 9)), torch.arange(18)
    assert again.record() == network.record() and again.record()["features"] == {"rows": 10, "columns": 4}
    assert torch.equal(again(items, valid), network(items, valid))


def test_an_item_is_its_own_row_and_those_of_its_features() -> None:
    network, features = described(), item_features(20)
    for item in range(20):
        pairs = zip(features.rows[item], features.shares[item], strict=True)
        own = network.item.weight[item] + sum(float(share) * network.features.weight[row] for row, share in pairs)
        torch.testing.assert_close(network.head[item], own)
    items, valid = torch.randint(0, 20, (2, 9)), torch.arange(18)
    before = network(items, valid)
    with torch.no_grad():
        network.features.weight[9] += torch.arange(8.0)  # Every item has some of that row.
    assert (network(items, valid) != before).all()


@pytest.mark.parametrize("tied", [True, False])
def test_folding_leaves_one_table_and_the_same_function(tied: bool) -> None:
    network = described(tied=tied)
    random_state = torch.get_rng_state()
    folded = network.folded()
    assert torch.equal(torch.get_rng_state(), random_state)
    plain = new_network(SETTINGS.model_copy(update={"tied": tied}), 20)
    assert folded.record() == plain.record() and folded.state_dict().keys() == plain.state_dict().keys()
    items, valid = torch.randint(0, 20, (2, 9)), torch.arange(18)
    assert torch.equal(folded(items, valid), network(items, valid))
    assert plain.folded() is plain
    with torch.no_grad():
        folded.position.weight.zero_()
    assert network.position.weight.any(), "no memory is shared"


def test_without_features_all_else_begins_alike_and_no_record_tells_of_them(network: PredictionNetwork) -> None:
    with_them = described().state_dict()
    assert all(torch.equal(tensor, with_them[name]) for name, tensor in network.state_dict().items())
    assert "features" not in network.record()


def test_other_networks_refuse_features_of_items() -> None:
    with pytest.raises(SettingsError, match="two_tower is for the task `top_n`"):
        new_network(TwoTowerSettings(kind="two_tower"), 20, {ITEM_FEATURES: item_features(20)})


def test_a_record_of_an_unknown_network_is_refused() -> None:
    with pytest.raises(IntegrityError, match="'oracle'"):
        network_of({"network": "oracle"})
