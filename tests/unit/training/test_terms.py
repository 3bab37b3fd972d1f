"""Terms of a loss by themselves: which head each reaches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from components.networks.building import new_network
from components.networks.contract import PredictionNetwork
from components.settings.distillation import DistillationSettings
from components.settings.losses import CLICK, Loss
from components.settings.network import PerceptronSettings
from components.settings.top_n_network import TwoTowerSettings
from components.soft_labels.labels import SoftLabels
from components.tasks.batch import ITEM_SETS, LEAST
from components.training.sampled_softmax import NegativeSampler
from components.training.terms import Companions, Step, term_sum
from tests.unit.training.cached import K, click, dense

POINTS = 12
ON_EITHER_HEAD: list[dict[str, Any]] = [
    {"kind": "divergence", "temperature": 2.0},
    {"kind": "standardised_divergence"},
    {"kind": "decoupled_divergence"},
    {"kind": "correlation"},
    {"kind": "correlation", "inter": 0.0},
    {"kind": "correlation", "intra": 0.0},
    {"kind": "relaxed_ranking", "interesting": 3, "among": 8, "uninteresting": 10},
    {"kind": "rejuvenated_cross_entropy", "k": 5, "sampled": 5, "among": 20},
    {"kind": "soft_binary_cross_entropy"},
    {"kind": "logit_squared_error"},
]


def term_of(loss: dict[str, Any], hard: str = "cross_entropy") -> Loss:
    return DistillationSettings.model_validate({"losses": [{"kind": hard}, loss]}).terms()[1]


def student(outcomes: int, linear_head: bool) -> tuple[PredictionNetwork, torch.Tensor]:
    """A network, and the weights of its last layer, which nothing but its scores reads."""
    torch.manual_seed(0)
    if linear_head:
        tower = TwoTowerSettings(kind="two_tower", dim=8, hidden=(8,), tied=False)
        network = new_network(tower, outcomes, {ITEM_SETS: True}).eval()
        return network, network.head
    sizes = {"mean": [0.0] * 10, "scale": [1.0] * 10}
    network = new_network(PerceptronSettings(kind="perceptron", hidden=(16,)), outcomes, sizes).eval()
    return network, network.output.weight


def hidden_of(network: PredictionNetwork) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if network.head is None:
        return network.encode(torch.randn(POINTS, 10, generator=generator))
    items = torch.randint(network.outcomes, (POINTS, 4), generator=generator)
    return network.encode(items, torch.full((POINTS,), 4))


def step_of(network: PredictionNetwork, **further: Any) -> Step:
    outcomes = network.outcomes
    labels = click(POINTS)[1] if outcomes == 1 else dense(POINTS)
    given = {
        "targets": torch.arange(POINTS) % max(2, outcomes),
        "labels": labels._replace(log_probs=labels.log_probs.float()),
        "smoothing": 0.0,
        "codec": {},
        "sampler": NegativeSampler(np.ones(outcomes, dtype=int)),
    }
    return Step(network=network, hidden=hidden_of(network), **{**given, **further})


@pytest.mark.parametrize("linear_head", [True, False], ids=["table", "scorer"])
@pytest.mark.parametrize("loss", ON_EITHER_HEAD, ids=str)
def test_a_term_on_the_auxiliary_head_teaches_that_and_not_the_served_one(
    loss: dict[str, Any], linear_head: bool
) -> None:
    term = term_of({**loss, "head": "auxiliary"})
    network, served = student(1 if term.codecs == CLICK else K, linear_head)
    companions = Companions([term], network, 0, 0)
    term_sum(term, step_of(network), companions).backward()
    weights = list(companions.parameters())
    assert weights and all(one.grad is not None for one in weights)
    assert sum(float(one.grad.abs().sum()) for one in weights) > 0
    assert served.grad is None or not served.grad.any()
    # What both stand on learns all the same.
    assert any(one.grad is not None and one.grad.any() for one in network.parameters())


def left_out_of(network: PredictionNetwork, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The outcomes that the network ranks first at each point but one, so that it shows whether they count."""
    best = network.score(hidden_of(network)).topk(count, dim=1).indices[1:]
    return torch.arange(1, POINTS).repeat_interleave(count), best.flatten()


def without(pairs: tuple[torch.Tensor, torch.Tensor], k: int) -> SoftLabels:
    """A list of labels that give some outcomes no chance."""
    log_probs = dense(POINTS).log_probs.index_put(pairs, torch.tensor(LEAST).double()).log_softmax(1).float()
    values, ids = log_probs.topk(k, dim=1)
    return SoftLabels(ids, values, torch.logsumexp(log_probs.scatter(1, ids, -torch.inf), dim=1), K)


@pytest.mark.parametrize("k", [6, K - 2], ids=["short list", "list that holds what is left out"])
@pytest.mark.parametrize("sampled", ["sampled_cross_entropy", "sampled_divergence"])
def test_with_many_negatives_a_sampled_term_tends_to_the_full_one_among_what_is_asked_for(sampled: str, k: int) -> None:
    network, _ = student(K, linear_head=True)
    with torch.no_grad():
        network.head.normal_(std=2.0)
    left_out = left_out_of(network, 3)
    known = left_out_of(network, 5)
    # What is asked for: two outcomes that are left out of no answer, and of some points but one.
    targets = network.score(hidden_of(network)).topk(10, dim=1).indices[:, 8:].clone()
    targets[::3, 1] = -1
    step = step_of(network, left_out=left_out, known=known, targets=targets, labels=without(known, k))
    companions = Companions([], network, 0, 0)
    options = {"temperature": 2.0} if sampled == "sampled_divergence" else {}
    full = term_sum(term_of({"kind": sampled.removeprefix("sampled_"), **options}), step, companions)
    many = term_of({"kind": sampled, "negatives": 100_000, **options})
    torch.testing.assert_close(term_sum(many, step, companions), full, rtol=0.01, atol=0.01)
    everything = term_sum(many, step._replace(left_out=None, known=None), companions)
    assert float((everything - full).detach()) > 1.0
