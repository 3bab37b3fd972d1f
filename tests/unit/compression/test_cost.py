from typing import Any

import pytest

from components.compression.cost import multiply_adds
from components.networks.building import new_network
from components.settings.base import validated
from components.settings.network import NetworkSection
from tests.unit.compression.shaken import shaken_network

VALUES = {"mean": [0.0] * 36, "scale": [1.0] * 36}


def test_a_causal_transformer_costs_what_its_matrices_do() -> None:
    length, dim, ffn, items = 12, 16, 24, 60
    a_row = 4 * dim * dim + 2 * dim * ffn  # q, k, v and o, and both sides of the feed-forward part
    first = length * a_row + 2 * length * length * dim
    # The last block multiplies q with k and o with v beforehand, for each of two heads, and has one row.
    last = 2 * dim * 2 * dim + 2 * length * 2 * dim + 2 * dim * ffn
    assert multiply_adds(shaken_network(items).record()) == first + last + items * dim


@pytest.mark.parametrize(
    ("settings", "sizes", "least"),
    [
        ({"kind": "perceptron", "hidden": [8]}, VALUES, 36 * 8 + 8 * 10),
        ({"kind": "convolution", "channels": [4, 8]}, {**VALUES, "image": [1, 6, 6]}, 36 * 9 * 4 + 9 * 9 * 4 * 8),
        ({"kind": "two_tower", "dim": 8, "hidden": [16]}, {"item_sets": True}, 2 * 8 * 16 + 10 * 8),
    ],
)
def test_every_kind_of_network_with_channels_is_counted(
    settings: dict[str, Any], sizes: dict[str, Any], least: int
) -> None:
    network = new_network(validated(NetworkSection, settings, "network"), 10, sizes)  # type: ignore[type-var]
    assert least <= multiply_adds(network.record()) < 2 * least


def test_networks_over_rows_and_texts_are_counted_too() -> None:
    row = {
        "rows": 50,
        "dim": 8,
        "columns": 5,
        "single": 3,
        "passed_over": 0,
        "bags": (2,),
        "mean": (0.0,),
        "scale": (1.0,),
    }
    row |= {"target": 1, "max_length": 6, "heads": 2, "attention_hidden": 8, "cross_ranks": (8,), "hidden": (16, 8)}
    assert multiply_adds({"network": "cross_network", "outcomes": 1, "dropout": 0.0, **row}) > 8 * 16
    block = {"heads": 2, "head_dim": 8, "ffn_dim": 24, "scale": 0.3}
    text = {
        "vocabulary": 50,
        "buckets": 100,
        "bag_dim": 8,
        "dim": 16,
        "max_length": 20,
        "encoded": 12,
        "blocks": (block,),
    }
    found = multiply_adds({"network": "text_encoder", "outcomes": 4, "dropout": 0.0, "token_dropout": 0.0, **text})
    assert found > 12 * (4 * 16 * 16 + 2 * 16 * 24)
