import pytest
import torch

from components.compression.groups import Group, Kind, prunable_groups
from components.compression.surgery import check_mask_equivalence, cut, kept_count, masked, units_to_keep
from components.errors import CompressionError
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import Ensemble
from tests.unit.compression.shaken import ITEMS, LENGTH, counts_of, shaken_network

INPUTS = [(torch.randint(0, ITEMS, (3, LENGTH)), torch.arange(3 * LENGTH))]


def half(network: PredictionNetwork, kind: Kind) -> tuple[list[Group], dict[str, torch.Tensor]]:
    groups = [group for group in prunable_groups(network) if group.kind == kind]
    scores = {group.name: torch.rand(group.units) for group in groups}
    return groups, units_to_keep(
        groups, scores, counts_of(groups, dict.fromkeys(("ffn", "heads", "head_width", "width"), 0.5))
    )


@pytest.mark.parametrize("described", [False, True])
def test_the_groups_cover_every_weight_of_a_unit(described: bool) -> None:
    groups = prunable_groups(shaken_network(tied=False, described=described))
    assert [group.name for group in groups] == [
        *(f"blocks.{block}.{part}" for block in (0, 1) for part in ("ffn", "heads", "head_width")),
        "width",
    ]
    cut_along = {(part.parameter, part.axis) for part in groups[-1].slices}
    for name, parameter in shaken_network(tied=False, described=described).named_parameters():
        for axis, size in enumerate(parameter.shape):
            # 16 is the model width, and also that of q, k and v together, which is the heads' business.
            if size == 16 and not any(part in name for part in ("q.bias", "k.bias", "v.bias")):
                heads = ("q.weight", "k.weight", "v.weight") if axis == 0 else ("o.weight",)
                assert ((name, axis) in cut_along) != name.endswith(heads)


@pytest.mark.parametrize(("tied", "described"), [(True, False), (False, False), (True, True)])
@pytest.mark.parametrize("kind", ["ffn", "heads", "head_width", "width"])
def test_the_smaller_network_is_the_masked_original(kind: Kind, tied: bool, described: bool) -> None:
    network = shaken_network(tied=tied, described=described, dim=32, heads=4)
    groups, kept = half(network, kind)
    smaller = cut(network, groups, kept)
    assert check_mask_equivalence(network, smaller, groups, kept, INPUTS) < 1e-12
    assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in network.parameters())
    reference = masked(network, groups, kept)
    torch.testing.assert_close(smaller(*INPUTS[0]), reference(*INPUTS[0]), rtol=0, atol=1e-4)


def test_all_kinds_are_cut_together() -> None:
    network = shaken_network(dim=32, heads=4)
    groups = prunable_groups(network)
    scores = {group.name: torch.rand(group.units) for group in groups}
    kept = units_to_keep(
        groups, scores, counts_of(groups, {"ffn": 0.7, "heads": 0.5, "head_width": 0.5, "width": 0.25})
    )
    smaller = cut(network, groups, kept)
    assert check_mask_equivalence(network, smaller, groups, kept, INPUTS) < 1e-12
    record, before = smaller.record(), network.record()
    assert record["dim"] == 24 and record["embedding_scale"] == before["embedding_scale"]
    assert [(block["heads"], block["head_dim"], block["ffn_dim"]) for block in record["blocks"]] == [(2, 4, 8)] * 2
    assert [block["scale"] for block in record["blocks"]] == [block["scale"] for block in before["blocks"]]


def test_heads_and_their_width_are_cut_again_in_what_is_left() -> None:
    network = shaken_network(dim=32, heads=4)
    for heads, head_dim in ((2, 4), (1, 2)):
        groups = [group for group in prunable_groups(network) if group.kind in ("heads", "head_width")]
        scores = {group.name: torch.rand(group.units) for group in groups}
        kept = units_to_keep(groups, scores, {group.name: group.units // 2 for group in groups})
        smaller = cut(network, groups, kept)
        assert check_mask_equivalence(network, smaller, groups, kept, INPUTS) < 1e-12
        network = smaller
        assert {(block["heads"], block["head_dim"]) for block in network.record()["blocks"]} == {(heads, head_dim)}


def test_the_original_stays_as_it_was() -> None:
    network = shaken_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    groups, kept = half(network, "width")
    cut(network, groups, kept)
    masked(network, groups, kept)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("kind", ["ffn", "heads", "head_width", "width"])
def test_a_cut_of_other_units_is_noticed(kind: Kind) -> None:
    network = shaken_network(dim=32, heads=4)
    groups, kept = half(network, kind)
    other = {
        group.name: torch.tensor([unit for unit in range(group.units) if unit not in set(kept[group.name].tolist())])
        for group in groups
    }
    wrong = cut(network, groups, other)
    with pytest.raises(CompressionError, match="not the original with the same units masked"):
        check_mask_equivalence(network, wrong, groups, kept, INPUTS)


def test_scores_that_are_not_finite_are_noticed() -> None:
    network = shaken_network()
    groups, kept = half(network, "ffn")
    smaller = cut(network, groups, kept)
    with torch.no_grad():
        smaller.norm.bias.fill_(torch.nan)
    with pytest.raises(CompressionError, match="inf"):
        check_mask_equivalence(network, smaller, groups, kept, INPUTS)


@pytest.mark.parametrize(
    ("kind", "units", "ratio", "kept"),
    [
        ("ffn", 128, 0.5, 64),
        ("ffn", 100, 0.5, 48),
        ("ffn", 24, 0.9, 8),
        ("ffn", 8, 0.5, 4),
        ("heads", 2, 0.5, 1),
        ("heads", 3, 0.5, 2),
        ("heads", 1, 0.9, 1),
        ("width", 64, 0.3, 48),
        ("width", 64, 0.99, 8),
        ("width", 20, 0.01, 20),
    ],
)
def test_how_many_stay(kind: Kind, units: int, ratio: float, kept: int) -> None:
    assert kept_count(kind, units, ratio) == kept


def test_the_most_important_units_stay_in_their_order() -> None:
    group = Group("g", "heads", 4, (), ())
    kept = units_to_keep([group], {"g": torch.tensor([0.1, 3.0, 0.1, 2.0])}, {"g": 3})
    assert kept["g"].tolist() == [0, 1, 3]


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(CompressionError, match="not known what can be cut"):
        prunable_groups(Ensemble([shaken_network()]))
