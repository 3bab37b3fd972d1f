"""How the weight of a loss goes over a training."""

from __future__ import annotations

import math

from components.settings.losses import ConstantSchedule, MovingSchedule


def scheduled_share(schedule: ConstantSchedule | MovingSchedule, done: float) -> float:
    """Factor on the weight: ``first``, then between the two along a line or half a cosine, then ``last``.

    Args:
        schedule: Which.
        done: Share of the training that lies behind, from 0 to 1.
    """
    if isinstance(schedule, ConstantSchedule):
        return 1.0
    moved = min(1.0, max(0.0, (done - schedule.begin) / (schedule.end - schedule.begin)))
    if schedule.kind == "cosine":
        moved = 0.5 * (1 - math.cos(math.pi * moved))
    return schedule.first + (schedule.last - schedule.first) * moved
