"""How the learning rate moves over a training."""

from __future__ import annotations

import math


def learning_rate_share(done: float, *, warmup_share: float, final_share: float) -> float:
    """Linear warm-up, then a cosine (Loshchilov & Hutter, "SGDR", 2017), as a share of the peak.

    Args:
        done: Share of the training that lies behind, from 0 to 1.
        warmup_share: Share of the training in which the rate rises.
        final_share: Where the cosine ends.
    """
    if done < warmup_share:
        return max(0.01, done / warmup_share)
    falling = 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warmup_share) / (1 - warmup_share))))
    return final_share + (1 - final_share) * falling
