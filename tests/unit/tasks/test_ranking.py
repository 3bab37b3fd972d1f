import math

import pytest
import torch

from components.errors import DataError
from components.tasks.ranking import MRR, NDCG, CatalogueCoverage, Recall, ndcg_of, ranks_of


def plain_rank(scores: list[float], target: int, seen: set[int]) -> int:
    others = [item for item in range(len(scores)) if item == target or item not in seen]
    return sorted(others, key=lambda item: (-scores[item], item)).index(target)


def test_ranks_equal_those_of_a_sorted_list_with_ties_and_seen_items() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 6, (200, 12), generator=generator).float()
    targets = torch.randint(0, 12, (200,), generator=generator)
    mask = torch.rand(200, 12, generator=generator) < 0.3
    ranks = ranks_of(scores, targets, mask.nonzero(as_tuple=True))
    expected = [
        plain_rank(scores[row].tolist(), int(targets[row]), set(mask[row].nonzero().flatten().tolist()))
        for row in range(200)
    ]
    assert ranks.tolist() == expected


def test_without_seen_items_every_item_competes() -> None:
    scores = torch.tensor([[0.3, 0.1, 0.2]])
    assert ranks_of(scores, torch.tensor([1])).tolist() == [2]
    assert ranks_of(scores, torch.tensor([1]), (torch.tensor([0]), torch.tensor([0]))).tolist() == [1]


def test_a_constant_score_is_no_good_score() -> None:
    assert ranks_of(torch.zeros(1, 100), torch.tensor([99])).tolist() == [99]


def test_infinite_scores_are_ranked_and_nan_is_refused() -> None:
    scores = torch.tensor([[-math.inf, 1.0, math.inf]])
    assert ranks_of(scores, torch.tensor([0])).tolist() == [2]
    with pytest.raises(DataError, match="NaN"):
        ranks_of(torch.tensor([[0.0, math.nan]]), torch.tensor([0]))


def test_metrics_are_means_over_all_batches() -> None:
    ranks = torch.tensor([0, 1, 9, 10, 200])
    ndcg, recall, mrr = NDCG(k=10), Recall(k=10), MRR()
    for metric in (ndcg, recall, mrr):
        metric.update_ranks(ranks[:2])
        assert float(metric.compute()) > 0
        metric.update_ranks(ranks[2:])
    assert float(ndcg.compute()) == pytest.approx((1 + 1 / math.log2(3) + 1 / math.log2(11)) / 5)
    assert float(recall.compute()) == pytest.approx(3 / 5)
    assert float(mrr.compute()) == pytest.approx((1 + 1 / 2 + 1 / 10 + 1 / 11 + 1 / 201) / 5)
    ndcg.reset()
    ndcg.update_ranks(ranks[3:])
    assert float(ndcg.compute()) == 0.0


def test_values_of_single_events_are_what_the_metric_averages() -> None:
    scores, targets = torch.randn(50, 30, generator=torch.Generator().manual_seed(1)), torch.arange(50) % 30
    metric = NDCG(k=5)
    metric.update(scores, targets)
    assert float(metric.compute()) == pytest.approx(float(ndcg_of(ranks_of(scores, targets), 5).mean()))


def test_coverage_counts_items_that_anyone_is_shown_and_no_seen_ones() -> None:
    scores = torch.tensor([[5.0, 4.0, 3.0, 2.0], [5.0, 4.0, 3.0, 2.0]])
    plain, masked = CatalogueCoverage(4, k=2), CatalogueCoverage(4, k=2)
    plain.update(scores)
    masked.update(scores, (torch.tensor([1, 1, 1]), torch.tensor([0, 1, 2])))
    assert float(plain.compute()) == 0.5
    assert float(masked.compute()) == 0.75
