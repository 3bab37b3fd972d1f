"""Losses of hidden states: what the teacher makes of a history, and which histories it takes for alike."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def hint(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """``1/2 * mean over the dimensions of (r(student) - teacher)**2``.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, equation 3, divided by the width so that a weight
    means the same for any teacher.

    Args:
        student: ``(N, dim)`` of the teacher's width: the student's hidden states after the regressor r.
        teacher: ``(N, dim)``.

    Returns:
        ``(N,)``.
    """
    return 0.5 * (student - teacher).square().mean(1)


def topology(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean over all pairs of points of ``(cos(student_i, student_j) - cos(teacher_i, teacher_j))**2``.

    Full topology distillation, Kang et al., "Topology Distillation for Recommender System", KDD 2021, equation 3, with
    the mean in the place of the sum. Widths may differ, and no regressor stands between.

    Args:
        student: ``(N, dim)``.
        teacher: ``(N, dim')``.

    Returns:
        A scalar; 0 without any point.
    """
    if len(student) == 0:
        return student.sum() * 0.0
    ours, theirs = F.normalize(student, dim=1), F.normalize(teacher.to(student.dtype), dim=1)
    return (ours @ ours.t() - theirs @ theirs.t()).square().mean()
