"""Correlation with the teacher instead of equality: over the outcomes of a point, over the points for an outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from components.training.losses.teacher_list import log_each_other

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels

_SMALLEST = 1e-8


def inter_relation(logits: torch.Tensor, labels: SoftLabels, temperature: float = 1.0) -> torch.Tensor:
    """``1 - pearson(q_i, p_i)`` of each point i, over the outcomes.

    Huang et al., "Knowledge Distillation from A Stronger Teacher" (DIST), NeurIPS 2022, equation 8. Of a list, q is
    completed by an even tail; the sums over K then need the outcomes of the list alone, since both means are 1 / K.

    Args:
        logits: ``(N, K)``.
        labels: Dense, or k outcomes and a tail, at this temperature.
        temperature: T, divides the logits.

    Returns:
        ``(N,)``, from 0 to 2.
    """
    student = torch.softmax(logits / temperature, dim=1)
    teacher = labels.log_probs.to(student.dtype).exp()
    mean = 1.0 / logits.shape[1]
    if labels.ids is None:
        both = (student * teacher).sum(1)
        of_teacher = teacher.square().sum(1)
    else:
        each = log_each_other(labels).to(student.dtype).exp()
        at_ids = student.gather(1, labels.ids)
        others = logits.shape[1] - labels.ids.shape[1]
        both = (at_ids * teacher).sum(1) + each * (student.sum(1) - at_ids.sum(1))
        of_teacher = teacher.square().sum(1) + others * each.square()
    mass = teacher_mass(labels, student.dtype)
    covariance = both - mean * mass
    deviations = (student.square().sum(1) - mean).clamp(min=0) * (of_teacher - mean * mass.square()).clamp(min=0)
    return 1 - covariance / deviations.clamp(min=_SMALLEST**2).sqrt()


def intra_relation(logits: torch.Tensor, labels: SoftLabels, temperature: float = 1.0) -> torch.Tensor:
    """``1 - pearson(q_j, p_j)`` of each outcome j over the points of a step, averaged over the outcomes.

    The same paper, equation 9. Of lists, only outcomes that some point of the step lists are compared: of the others
    the cache knows nothing that differs between points but the size of the tail.

    Args:
        logits: ``(N, K)``, all points of the step.
        labels: Dense, or k outcomes and a tail, at this temperature.
        temperature: T, divides the logits.

    Returns:
        A scalar; 0 for a single point.
    """
    student = torch.softmax(logits / temperature, dim=1)
    if len(student) < 2:
        return student.sum() * 0.0
    if labels.ids is None:
        teacher = labels.log_probs.to(student.dtype).exp()
    else:
        listed = labels.ids.unique()
        each = log_each_other(labels).to(student.dtype).exp()
        column = torch.searchsorted(listed, labels.ids)
        teacher = each.unsqueeze(1).repeat(1, len(listed))
        teacher.scatter_(1, column, labels.log_probs.to(student.dtype).exp())
        student = student.index_select(1, listed)
    # Rare outcomes have tiny probabilities: each column is divided by its own norm, with nothing added to it.
    student, teacher = (F.normalize(column - column.mean(0), dim=0) for column in (student, teacher))
    return (1 - (student * teacher).sum(0)).mean()


def teacher_mass(labels: SoftLabels, dtype: torch.dtype) -> torch.Tensor:
    """All of the teacher's mass ``(N,)``: 1 but for the rounding of what is stored."""
    mass = labels.log_probs.to(dtype).exp().sum(1)
    return mass if labels.tail is None else mass + labels.tail.to(dtype).exp()
