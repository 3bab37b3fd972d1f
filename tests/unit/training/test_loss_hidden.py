import pytest
import torch
from torch.autograd import gradcheck

from components.training.losses.hidden import hint, topology


def states(points: int, dim: int, seed: int) -> torch.Tensor:
    return torch.randn(points, dim, generator=torch.Generator().manual_seed(seed)).double()


def test_a_hint_is_half_the_mean_square_of_what_is_missing() -> None:
    ours, theirs = states(5, 6, 0), states(5, 6, 1)
    expected = torch.stack([sum((ours[row, at] - theirs[row, at]) ** 2 for at in range(6)) / 12 for row in range(5)])
    torch.testing.assert_close(hint(ours, theirs), expected)
    ours.requires_grad_()
    (gradient,) = torch.autograd.grad(hint(ours, theirs).sum(), ours)
    torch.testing.assert_close(gradient, (ours - theirs).detach() / 6)


def test_topology_compares_the_angle_of_each_pair() -> None:
    ours, theirs = states(5, 3, 0), states(5, 8, 1)

    def cosine(rows: torch.Tensor, i: int, j: int) -> float:
        return float(rows[i] @ rows[j] / (rows[i].norm() * rows[j].norm()))

    pairs = [(cosine(ours, i, j) - cosine(theirs, i, j)) ** 2 for i in range(5) for j in range(5)]
    assert float(topology(ours, theirs)) == pytest.approx(sum(pairs) / 25)
    assert gradcheck(lambda ours: topology(ours, theirs), (ours.requires_grad_(),))


def test_topology_knows_no_length_and_no_rotation() -> None:
    theirs = states(7, 4, 1)
    turn = torch.linalg.qr(states(4, 4, 2)).Q
    assert float(topology(3 * theirs @ turn, theirs)) < 1e-20
    assert float(topology(theirs[:0], theirs[:0])) == 0.0
