"""What can be cut out of a network, as the network itself says it."""

from __future__ import annotations

from components.networks.contract import PredictionNetwork
from components.networks.units import Group, Kind, Slice

__all__ = ["Group", "Kind", "Slice", "prunable_groups"]


def prunable_groups(network: PredictionNetwork) -> list[Group]:
    """All groups of a network.

    Raises:
        CompressionError: It is not known what can be cut out of this network.
    """
    return network.groups
