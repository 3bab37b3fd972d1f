"""Matrix factorization of what users took: a row an item, and a user's row solved for from the items of the user.

No user has a row of its own. Given the items' rows ``v_i``, a user who took the set S has the row

    x = (P + ridge(|S|) I + sum_{i in S} v_i v_i^T)^-1 sum_{i in S} v_i

which is a half step of alternating least squares (Hu, Koren and Volinsky, "Collaborative Filtering for Implicit
Feedback Datasets", ICDM 2008, equation 4) with all items that were not taken summed up in P, their Gram matrix times
their weight. So a user who was not there when the model was trained is served like any other ("folding in"), and no
package names anybody. The system is solved by a fixed number of conjugate gradient steps (Takács, Pilászy and Tikk,
RecSys 2011), preconditioned by what all users have in common: only products, so that the same steps run in ONNX.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.networks.contract import RecordedNetwork, ServedInput
from components.networks.item_sets import counted_rows, item_set_inputs
from components.networks.units import Group, Slice


class MatrixFactorizationRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["matrix_factorization"] = "matrix_factorization"
    items: int
    dim: int
    prior_rows: int
    """Rows of the matrix B with ``P = B^T B``; stays what it was when the width is cut."""
    steps: int
    """Conjugate gradient steps."""
    max_length: int
    dropout: float


class MatrixFactorization(RecordedNetwork[MatrixFactorizationRecord]):
    """From the items of users to logits over the catalogue, ``scale * x . v_i``."""

    def __init__(self, record: MatrixFactorizationRecord) -> None:
        super().__init__(record)
        self.item = nn.Embedding(record.items, record.dim)
        nn.init.normal_(self.item.weight, std=0.3 / math.sqrt(record.dim))
        self.prior = nn.Parameter(torch.eye(record.prior_rows, record.dim) * 0.3)
        # Logs: of what each user's ridge begins with, of what each item adds to it, and of the scale of the logits.
        self.ridge = nn.Parameter(torch.tensor([-0.3, -6.0]))
        self.scale = nn.Parameter(torch.tensor([3.0]))
        self.dropout = nn.Dropout(record.dropout)

    @property
    def outcomes(self) -> int:
        """Size of the catalogue."""
        return self._record.items

    @property
    def head(self) -> torch.Tensor:
        """The items' rows."""
        return self.item.weight

    def encode(self, items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Rows of users times the scale, ``(N, dim)``, of items ``(N, length)`` int64, padded on the right."""
        rows, count = counted_rows(self.item.weight, items, length)
        prior, start, each = self._prior(), *self.ridge.exp()
        inverse = torch.linalg.inv(prior + start * torch.eye(self._record.dim, dtype=prior.dtype, device=prior.device))
        ridge = (start + each * count)[:, None]
        x = user_rows(rows, ridge, prior[None], inverse[None], self._record.steps)
        return self.dropout(x) * self.scale.exp()

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return F.linear(hidden, self.item.weight)

    @property
    def groups(self) -> list[Group]:
        """The width of the rows."""
        slices = (Slice("item.weight", 1), Slice("prior", 1))
        return [Group("width", "width", self._record.dim, slices, ("dim",))]

    @property
    def served_inputs(self) -> tuple[ServedInput, ...]:
        """See :func:`item_set_inputs`."""
        return item_set_inputs()

    def for_serving(self) -> nn.Module:
        """See :class:`ServedMatrixFactorization`."""
        return ServedMatrixFactorization(self)

    @torch.no_grad()
    def take(self, table: torch.Tensor, unobserved: float, regularization: float) -> None:
        """Become the factorization that alternating least squares found.

        Args:
            table: ``(K, dim)``, the items' rows.
            unobserved: Weight of a pair that was not observed, against 1 of one that was.
            regularization: Of a row, for each unit of weight in its sum of squares.
        """
        gram = unobserved * table.double().T @ table.double()
        values, vectors = torch.linalg.eigh(gram)
        self.item.weight.copy_(table)
        self.prior.zero_()
        self.prior[: len(gram)].copy_((vectors * values.clamp(min=0).sqrt()).T)
        self.ridge.copy_(torch.tensor([regularization * unobserved * len(table), regularization]).log())

    def _prior(self) -> torch.Tensor:
        return self.prior.T @ self.prior


class ServedMatrixFactorization(nn.Module):
    """The same function with its constants multiplied out.

    Args:
        network: Whose function; it stays as it is.
    """

    def __init__(self, network: MatrixFactorization) -> None:
        super().__init__()
        prior, ridge = network._prior().detach(), network.ridge.detach().exp()
        self.item = _constant(network.item.weight)
        # Matrices of three axes: quantizers of linear layers pass them by, and the system stays symmetric.
        self.prior = _constant(prior[None])
        self.inverse = _constant(torch.linalg.inv(prior + ridge[0] * torch.eye(len(prior)))[None])
        self.start, self.each, self.scale = float(ridge[0]), float(ridge[1]), float(network.scale.detach().exp())
        self.steps = network._record.steps

    def forward(self, items: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, K)`` of items ``(batch, length)``, padded on the right, and their numbers ``(batch,)``."""
        rows, count = counted_rows(self.item, items, length)
        ridge = (self.start + self.each * count)[:, None]
        x = user_rows(rows, ridge, self.prior, self.inverse, self.steps)
        return F.linear(x * self.scale, self.item)


def user_rows(
    rows: torch.Tensor, ridge: torch.Tensor, prior: torch.Tensor, inverse: torch.Tensor, steps: int
) -> torch.Tensor:
    """Solve ``(P + ridge I + sum v v^T) x = sum v`` for every user, in double precision: little regularization makes
    systems on whose solution two ways of adding up in single precision do not agree.

    Args:
        rows: ``(N, length, dim)``, the items' rows v, zeros where there is no item.
        ridge: ``(N, 1, 1)``.
        prior: P ``(1, dim, dim)``.
        inverse: Of P with the ridge of a user without items, ``(1, dim, dim)``.
        steps: Conjugate gradient steps.

    Returns:
        ``(N, dim)``, in the precision of the rows.
    """
    precision = rows.dtype
    rows, ridge, prior, inverse = (part.double() for part in (rows, ridge, prior, inverse))
    system = prior + rows.transpose(1, 2) @ rows
    # Row vectors (N, 1, dim): the system is symmetric.
    left = rows.sum(1, keepdim=True)
    x, conditioned = torch.zeros_like(left), left @ inverse
    direction, product = conditioned, (left * conditioned).sum(2, keepdim=True)
    for step in range(steps):
        image = direction @ system + ridge * direction
        length = product / (direction * image).sum(2, keepdim=True).clamp(min=_TINY)
        x = x + length * direction
        if step + 1 < steps:
            left = left - length * image
            conditioned = left @ inverse
            before, product = product, (left * conditioned).sum(2, keepdim=True)
            direction = conditioned + product / before.clamp(min=_TINY) * direction
    return x.squeeze(1).to(precision)


# Once the solution is exact, 0 / 0 is 0. A sum with it would be taken for a sum with 0, and left out, by the export.
_TINY = 1e-30


def _constant(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().clone().contiguous(), requires_grad=False)
