"""From settings to a network that reads texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from components.errors import SettingsError
from components.networks.bag_of_ngrams import BagOfNgrams, BagOfNgramsRecord
from components.networks.causal_transformer import BlockRecord
from components.networks.contract import PredictionNetwork
from components.networks.pretrained_encoder import pretrained_encoder
from components.networks.text_encoder import TextEncoder, TextEncoderRecord
from components.settings.text_network import BagOfNgramsSettings, HuggingFaceSettings, TextEncoderSettings


def new_text_network(
    settings: BagOfNgramsSettings | TextEncoderSettings | HuggingFaceSettings, outcomes: int, sizes: Mapping[str, Any]
) -> PredictionNetwork:
    """A freshly initialised network.

    Args:
        settings: Its shape.
        outcomes: K.
        sizes: ``vocabulary``, and ``idf`` of each token, by which the first weights of a bag are scaled.

    Raises:
        DataError, IntegrityError: Pretrained weights are missing, or are others.
        SettingsError: The task is not over texts, or the network does not fit it.
    """
    if "vocabulary" not in sizes:
        raise SettingsError(f"a {settings.kind} is for tasks over texts", "Choose another `network.kind`.")
    if isinstance(settings, HuggingFaceSettings):
        return pretrained_encoder(settings, outcomes, int(sizes["vocabulary"]))
    idf = torch.tensor(sizes["idf"])
    shared = {
        "outcomes": outcomes,
        "vocabulary": int(sizes["vocabulary"]),
        **settings.model_dump(include={"dim", "buckets", "max_length", "dropout", "token_dropout"}),
    }
    if isinstance(settings, BagOfNgramsSettings):
        return BagOfNgrams(BagOfNgramsRecord(**shared), idf)
    head_dim = settings.dim // settings.heads
    block = BlockRecord(heads=settings.heads, head_dim=head_dim, ffn_dim=settings.ffn_dim, scale=head_dim**-0.5)
    record = TextEncoderRecord(
        **shared, bag_dim=settings.bag_dim, encoded=settings.encoded, blocks=(block,) * settings.blocks
    )
    return TextEncoder(record, idf)
