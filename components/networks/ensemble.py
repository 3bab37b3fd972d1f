"""Several networks that count as one: the mean of their probabilities.

Lakshminarayanan, Pritzel and Blundell, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
2017: the members differ by their seed only, and the mixture weighs them equally.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from components.errors import DataError
from components.networks.building import read_network, write_network
from components.networks.contract import PredictionNetwork
from components.storage.atomic import read_json, write_json
from components.storage.checkpoints import checkpoint_digest
from components.storage.digests import record_digest

TEACHER_FILE = "teacher.json"


class Ensemble(PredictionNetwork):
    """Scores with the log of the mean of its members' probabilities."""

    def __init__(self, members: Sequence[PredictionNetwork]) -> None:
        super().__init__()
        if len({member.outcomes for member in members}) != 1:
            raise ValueError("the members of an ensemble must score the same outcomes")
        self.members = nn.ModuleList(members)

    def record(self) -> dict[str, Any]:
        """The members' architecture records. A teacher on disk is a folder a member, see :func:`read_teacher`."""
        return {"network": "ensemble", "members": [member.record() for member in self._networks()]}

    def encode(self, *inputs: Any, **named: Any) -> torch.Tensor:
        """The members' hidden states side by side, ``(N, sum of the members' dims)``."""
        return torch.cat([member.encode(*inputs, **named) for member in self._networks()], dim=-1)

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log-probabilities ``(N, K)`` of what :meth:`encode` gave: ``log(mean of the softmax of each member)``.

        Of one outcome, a yes or no, the logit of the mean of the members' probabilities of yes.
        """
        widths = [member.hidden_dim for member in self._networks()]
        parts = hidden.split(widths, dim=-1)
        if self.outcomes == 1:
            logits = [member.score(part).float() for member, part in zip(self._networks(), parts, strict=True)]
            yes, no = (torch.stack([F.logsigmoid(sign * logit) for logit in logits]).logsumexp(0) for sign in (1, -1))
            return yes - no
        mixture: torch.Tensor | None = None
        for member, part in zip(self._networks(), parts, strict=True):
            log_probabilities = torch.log_softmax(member.score(part).float(), dim=-1)
            mixture = log_probabilities if mixture is None else torch.logaddexp(mixture, log_probabilities)
        assert mixture is not None
        return mixture - math.log(len(widths))

    def folded(self) -> PredictionNetwork:
        """Of folded members."""
        return Ensemble([member.folded() for member in self._networks()]).train(self.training)

    @property
    def outcomes(self) -> int:
        """K of every member."""
        return self._networks()[0].outcomes

    @property
    def hidden_dim(self) -> int:
        """The members' widths together."""
        return sum(member.hidden_dim for member in self._networks())

    @property
    def max_length(self) -> int:
        """Events of a history that every member takes."""
        return min(member.max_length for member in self._networks())

    def _networks(self) -> list[PredictionNetwork]:
        return [member for member in self.members if isinstance(member, PredictionNetwork)]


def member_folders(folder: Path) -> list[Path]:
    """The checkpoints of the teacher in ``folder``, in order.

    Raises:
        DataError: There is no teacher.
    """
    record = read_json(folder / TEACHER_FILE)
    try:
        return [folder / f"member-{number}" for number in range(int(record["members"]))]
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{folder / TEACHER_FILE} does not say how many members there are", "Run the stage `train_teacher` again."
        ) from None


def read_teacher(folder: Path) -> PredictionNetwork:
    """The teacher in ``folder``, in evaluation mode: its one member, or the ensemble of all.

    Raises:
        DataError: A file is missing.
        IntegrityError: The files are damaged.
    """
    members = [read_network(path) for path in member_folders(folder)]
    return members[0] if len(members) == 1 else Ensemble(members).eval()


def write_teacher(folder: Path, members: Sequence[PredictionNetwork]) -> None:
    """Write a teacher, its digest into its record.

    Args:
        folder: An empty one.
        members: Its networks, in order.
    """
    for number, member in enumerate(members):
        (folder / f"member-{number}").mkdir()
        write_network(folder / f"member-{number}", member)
    write_json(folder / TEACHER_FILE, {"members": len(members)})
    write_json(folder / TEACHER_FILE, {"members": len(members), "digest": teacher_digest(folder)})


def teacher_digest(folder: Path) -> str:
    """SHA-256 over the members' digests, in order: the identity of the teacher.

    Raises:
        DataError: A file is missing.
    """
    return record_digest([checkpoint_digest(path) for path in member_folders(folder)])
