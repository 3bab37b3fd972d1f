"""The copy of a network's last layer that an auxiliary head begins from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from components.networks.building import new_network
from components.networks.contract import PredictionNetwork
from components.settings.network import ConvolutionSettings, NetworkSettings, PerceptronSettings
from components.settings.text_network import BagOfNgramsSettings, TextEncoderSettings

VALUES: dict[str, Any] = {"mean": [0.0] * 16, "scale": [1.0] * 16}
TEXTS: dict[str, Any] = {"vocabulary": 20, "idf": [1.0] * 20}
NETWORKS: list[tuple[NetworkSettings, dict[str, Any]]] = [
    (PerceptronSettings(kind="perceptron"), VALUES),
    (ConvolutionSettings(kind="convolution", channels=(4,), halved_after=(1,)), {**VALUES, "image": (1, 4, 4)}),
    (BagOfNgramsSettings(kind="bag_of_ngrams", dim=8), TEXTS),
    (TextEncoderSettings(kind="text_encoder", dim=8, blocks=1, heads=2, ffn_dim=8, bag_dim=8), TEXTS),
]


def hidden_of(network: PredictionNetwork) -> torch.Tensor:
    return torch.randn(5, network.hidden_dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("settings", "sizes"), NETWORKS, ids=lambda one: getattr(one, "kind", ""))
def test_a_copied_scorer_scores_alike_and_is_trained_apart(settings: NetworkSettings, sizes: dict[str, Any]) -> None:
    network = new_network(settings, 7, sizes).eval()
    scorer, hidden = network.copied_scorer(), hidden_of(network)
    assert torch.equal(scorer(hidden), network.score(hidden))
    scorer(hidden).sum().backward()
    assert all(one.grad is not None for one in scorer.parameters())
    assert all(one.grad is None for one in network.parameters())
