from pathlib import Path

import numpy as np
import pytest
import torch

from components.data.dataset import PreparedDataset
from components.evaluation.scoring import network_scorer, onnx_scorer
from components.networks.building import read_network
from components.tasks.batch import EvaluationBatch
from components.tasks.building import task_of
from components.tasks.full_ranking import quality, ranking


def batches(prepared: PreparedDataset, size: int = 16, max_length: int = 8) -> list[EvaluationBatch]:
    return list(task_of("next_item", prepared, max_length).evaluation_batches("test", size))


def test_a_scorer_that_knows_the_target_is_perfect(prepared: PreparedDataset) -> None:
    def oracle(batch: EvaluationBatch) -> torch.Tensor:
        return torch.nn.functional.one_hot(batch.targets, prepared.items).float()

    found = quality(ranking(oracle, batches(prepared), prepared.items))
    assert found["ndcg10"] == found["recall10"] == found["mrr"] == found["ndcg10_seen_kept"] == 1


def test_items_of_the_history_stand_before_the_target_only_where_they_are_kept(prepared: PreparedDataset) -> None:
    def backwards(batch: EvaluationBatch) -> torch.Tensor:
        scores = torch.zeros(len(batch.targets), prepared.items)
        scores[torch.arange(len(batch.targets)), batch.targets] = 1
        scores[batch.seen] = 2
        return scores

    found = ranking(backwards, batches(prepared), prepared.items)
    seen = {int(user): 0 for user in found.users}
    for batch in batches(prepared):
        for row, user in enumerate(batch.users.tolist()):
            mine = batch.seen[1][batch.seen[0] == row].unique()
            seen[user] = len(mine[mine < batch.targets[row]]) if batch.targets[row] in mine else len(mine)
    new = found.ranks_seen_kept == np.array([seen[user] for user in found.users.tolist()])
    assert (found.ranks == 0).all()
    assert new.all()


def test_onnx_and_torch_rank_alike_whatever_the_batches(artifacts: Path, prepared: PreparedDataset) -> None:
    in_torch = ranking(network_scorer(read_network(artifacts / "pruned")), batches(prepared), prepared.items)
    in_onnx = ranking(onnx_scorer(artifacts / "quantized" / "pruned.fp32.onnx"), batches(prepared, 7), prepared.items)
    assert (in_torch.users == in_onnx.users).all()
    assert (in_torch.targets == in_onnx.targets).all()
    assert (in_torch.ranks == in_onnx.ranks).mean() > 0.98
    assert in_torch.coverage == pytest.approx(in_onnx.coverage, abs=0.03)
    assert len(set(in_torch.ranks.tolist())) > 10


def test_rankings_of_networks_that_read_differently_long_histories_are_in_one_order(prepared: PreparedDataset) -> None:
    def constant(batch: EvaluationBatch) -> torch.Tensor:
        return torch.zeros(len(batch.targets), prepared.items)

    short, long = (ranking(constant, batches(prepared, 16, length), prepared.items) for length in (3, 50))
    assert (short.targets == long.targets).all()
    assert (short.users == long.users).all()
