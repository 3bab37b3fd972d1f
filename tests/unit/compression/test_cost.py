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
