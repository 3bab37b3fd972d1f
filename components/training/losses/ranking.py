"""Losses of order: what the teacher ranks first is to come first, in its order, whatever the probabilities.

The draws that both losses need are functions of their own, so that the losses are functions of what was drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from components.training.losses.teacher_list import best_of, is_in, log_probs_at

if TYPE_CHECKING:
    from components.soft_labels.labels import SoftLabels

# As in the authors' code: more rivals than these sharpen the draw no further.
_MOST_RANKED_BELOW = 50.0
_SMALLEST_WEIGHT = 1e-30


def places_by_importance(points: int, listed: int, count: int, sharpness: float, device: torch.device) -> torch.Tensor:
    """Places of the teacher's list, drawn without replacement with ``p(place) ~ exp(-place / sharpness)``, ascending.

    Kang et al., "DE-RRD", CIKM 2020, equation 7, places from 1. From torch's generator.

    Args:
        points: N.
        listed: Length of the list.
        count: How many are drawn for each point, at most ``listed``.
        sharpness: T: a small one draws the first places alone.
        device: Where.

    Returns:
        ``(N, count)`` int64.
    """
    importance = torch.exp(-torch.arange(1, listed + 1, device=device) / sharpness)
    return torch.multinomial(importance.expand(points, -1), count).sort(dim=1).values


def relaxed_ranking(
    logits: torch.Tensor, interesting: torch.Tensor, uninteresting: torch.Tensor, left_out: torch.Tensor
) -> torch.Tensor:
    """Mean over the interesting outcomes i of ``-log(exp s_i / (sum_{j from i on} exp s_j + sum_l exp s_l))``.

    The likelihood that the interesting ones come in this order and before all uninteresting ones, whose order is left
    open: relaxed ranking distillation, Kang et al., "DE-RRD", CIKM 2020, equations 8 and 9, divided by the number of
    interesting ones so that a weight means the same for any.

    Args:
        logits: ``(N, K)``, s.
        interesting: ``(N, m)`` int64, in the teacher's order, best first.
        uninteresting: ``(L,)`` int64, shared by all points.
        left_out: ``(N, L)`` bool, which of those do not count for a point, since the teacher lists them or they were
            observed.

    Returns:
        ``(N,)``.
    """
    wanted = logits.gather(1, interesting)
    others = logits.index_select(1, uninteresting).masked_fill(left_out, -torch.inf)
    rest = torch.logsumexp(torch.cat([others, others.new_full((len(others), 1), -1e30)], dim=1), dim=1, keepdim=True)
    behind = torch.logcumsumexp(wanted.flip(1), dim=1).flip(1)
    return (torch.logaddexp(behind, rest) - wanted).mean(1)


def collaborative_sample(
    teacher_best: torch.Tensor, student_best: torch.Tensor, count: int, sharpness: float
) -> torch.Tensor:
    """Outcomes of the student's list, drawn without replacement where the teacher's best lie at or below them.

    ``p(j) ~ exp((1 + min(50, c_j)) / sharpness)`` with c_j the teacher's best that the student ranks at j or below:
    the closure of what is to be learned is then likely in the sample. Zhu and Zhang, "Rejuvenating Cross-Entropy Loss
    in Knowledge Distillation for Recommender Systems" (RCE-KD), ICLR 2026, section 5.2, as in its authors' code.

    Args:
        teacher_best: ``(N, k)`` int64.
        student_best: ``(N, M)`` int64, best first.
        count: How many are drawn for each point, at most M.
        sharpness: Of the draw, from torch's generator.

    Returns:
        ``(N, count)`` int64.
    """
    wanted = is_in(student_best, teacher_best).float()
    below = wanted.flip(1).cumsum(1).flip(1).clamp(max=_MOST_RANKED_BELOW)
    # Divided by the largest, which changes no chance, so that no exponential overflows; none may vanish either.
    weight = torch.exp((below - below[:, :1]) / sharpness).clamp(min=_SMALLEST_WEIGHT)
    return student_best.gather(1, torch.multinomial(weight, count))


def rejuvenated_cross_entropy(
    logits: torch.Tensor,
    labels: SoftLabels,
    student_best: torch.Tensor,
    sampled: torch.Tensor,
    *,
    beta: float,
    temperature: float = 1.0,
) -> torch.Tensor:
    """``(1 - g) * CE over Q_S + g * CE over A and Q_T without (Q_S and A)``, ``g = exp(-beta * |Q_T & A| / k)``.

    Q_T and Q_S are the k best of teacher and student, A a sample (:func:`collaborative_sample`), and CE over a set is
    the cross entropy between both distributions renormalised to it. What the student ranks high too is judged among
    the student's own best, where the loss bounds NDCG; the rest of the teacher's list against the sample. RCE-KD (Zhu
    and Zhang, ICLR 2026), section 5, as in its authors' code. There the teacher scores any outcome; here one outside
    the cached list has an even share of the tail.

    Args:
        logits: ``(N, K)``.
        labels: Dense, or k outcomes and a tail, at this temperature.
        student_best: ``(N, k)`` int64, Q_S.
        sampled: ``(N, L)`` int64, A.
        beta: How fast the second part fades as the sample meets the teacher's best.
        temperature: Divides the logits.

    Returns:
        ``(N,)``.
    """
    scaled = logits / temperature
    teacher_best, _ = best_of(labels, student_best.shape[1])
    met = is_in(teacher_best, sampled)
    near = _cross_entropy_over(scaled, labels, student_best, None)
    rest = torch.cat([sampled, teacher_best], dim=1)
    taken = torch.cat([torch.zeros_like(sampled, dtype=torch.bool), met | is_in(teacher_best, student_best)], dim=1)
    far = _cross_entropy_over(scaled, labels, rest, taken)
    share = torch.exp(-beta * met.to(scaled.dtype).mean(1))
    return (1 - share) * near + share * far


def _cross_entropy_over(
    scaled: torch.Tensor, labels: SoftLabels, ids: torch.Tensor, left_out: torch.Tensor | None
) -> torch.Tensor:
    teacher, student = log_probs_at(labels, ids).to(scaled.dtype), scaled.gather(1, ids)
    if left_out is not None:
        teacher, student = teacher.masked_fill(left_out, -torch.inf), student.masked_fill(left_out, -torch.inf)
    log_probs = student.log_softmax(1)
    if left_out is not None:
        log_probs = log_probs.masked_fill(left_out, 0.0)
    # A set of which the teacher thinks nothing at all has no distribution; nothing is learned from it.
    known = (teacher > -torch.inf).any(1)
    weight = teacher.masked_fill(~known.unsqueeze(1), 0.0).softmax(1) * known.unsqueeze(1)
    return -(weight * log_probs).sum(1)
