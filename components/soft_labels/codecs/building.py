"""From settings or a manifest to the codec that they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.errors import SettingsError
from components.settings.soft_labels import SoftLabelSettings
from components.soft_labels.codecs.base import Codec
from components.soft_labels.codecs.dense import Dense
from components.soft_labels.codecs.logit import Logit
from components.soft_labels.codecs.sampled import Sampled, TopKSampled
from components.soft_labels.codecs.top_k_tail import TopKTail


def codec_for(settings: SoftLabelSettings, outcomes: int, hidden_dim: int = 0) -> Codec:
    """The codec that the settings ask for.

    Args:
        settings: Its name and options.
        outcomes: K.
        hidden_dim: Width of the teacher's hidden states; stored when the settings say so.

    Raises:
        SettingsError: The codec is not for K outcomes.
    """
    record = {"name": settings.codec, "k": settings.k, "head": settings.head}
    return codec_of({**record, "hidden_dim": hidden_dim if settings.hidden_states else 0}, outcomes)


def codec_of(record: Mapping[str, Any], outcomes: int) -> Codec:
    """The codec that a manifest names.

    Raises:
        SettingsError: It is not known, or not for K outcomes.
    """
    hidden = int(record.get("hidden_dim", 0))
    match record.get("name"):
        case "dense":
            return Dense(outcomes, hidden)
        case "logit":
            return Logit(outcomes, hidden)
        case "top_k_tail":
            return TopKTail(outcomes, int(record["k"]), hidden)
        case "sampled":
            return Sampled(outcomes, int(record["k"]), hidden)
        case "top_k_sampled":
            return TopKSampled(outcomes, int(record["k"]), int(record["head"]), hidden)
        case name:
            known = ", ".join(sorted(codec.name for codec in (Dense, Logit, TopKTail, Sampled, TopKSampled)))
            raise SettingsError(f"unknown codec of soft labels {name!r}", f"Known: {known}.")
