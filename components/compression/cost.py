"""What one request costs a network: the multiply-adds of its served form.

Counted, not timed, although time is what a user waits for: a time differs from machine to machine and from run to run,
and with it the network that a cut leaves; the same student and settings must give the same bytes. The served form is
what is counted, since it leaves work out that training does (a causal transformer's last block computes one position
alone, so its channels cost a fiftieth of those of the blocks before).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from components.networks.building import network_of


def multiply_adds(record: Mapping[str, Any]) -> int:
    """Multiply-adds of matrix products and convolutions for one request with the longest history.

    Args:
        record: The architecture record; no weights are needed, and none are made.

    Raises:
        CompressionError: The network has no served form.
    """
    with torch.device("meta"), torch.inference_mode():
        network = network_of(dict(record)).eval()
        sizes = {"batch": 1, "length": max(1, network.max_length)}
        inputs = [
            torch.zeros([sizes.get(each.dynamic.get(axis, ""), size) for axis, size in enumerate(each.shape)]).to(
                each.dtype
            )
            for each in network.served_inputs
        ]
        served = network.for_serving()
        # Fused attention is no matrix product to the counter.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            served(*inputs)
    return int(counter.get_total_flops()) // 2
