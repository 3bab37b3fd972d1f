"""From settings or from a checkpoint to a network; one place that knows every architecture by its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from components.errors import IntegrityError, SettingsError
from components.networks.bag_of_ngrams import BagOfNgrams, BagOfNgramsRecord
from components.networks.building_text import new_text_network
from components.networks.building_top_n import new_top_n_network
from components.networks.causal_transformer import BlockRecord, CausalTransformer, CausalTransformerRecord
from components.networks.contract import PredictionNetwork
from components.networks.convolution import Convolution, ConvolutionRecord
from components.networks.cross_network import CrossNetwork, CrossNetworkRecord
from components.networks.item_features import ItemFeaturesRecord
from components.networks.matrix_factorization import MatrixFactorization, MatrixFactorizationRecord
from components.networks.perceptron import Perceptron, PerceptronRecord
from components.networks.pretrained_encoder import PretrainedEncoder, PretrainedEncoderRecord
from components.networks.text_encoder import TextEncoder, TextEncoderRecord
from components.networks.two_tower import TwoTower, TwoTowerRecord
from components.settings.network import (
    ConvolutionSettings,
    CrossNetworkSettings,
    NetworkSettings,
    PerceptronSettings,
)
from components.settings.text_network import BagOfNgramsSettings, HuggingFaceSettings, TextEncoderSettings
from components.settings.top_n_network import MatrixFactorizationSettings, TwoTowerSettings
from components.storage.checkpoints import read_checkpoint, write_checkpoint
from components.tasks.batch import ITEM_FEATURES

_CATEGORIES = ("single", "bags")


def new_network(settings: NetworkSettings, outcomes: int, sizes: Mapping[str, Any] | None = None) -> PredictionNetwork:
    """A freshly initialised network.

    Args:
        settings: Its shape.
        outcomes: K.
        sizes: Of its inputs, as the task gives them.

    Raises:
        SettingsError: The network is not for this task.
    """
    sizes = sizes or {}
    if isinstance(settings, CrossNetworkSettings):
        if "features" not in sizes:
            raise SettingsError("a cross network is for tasks over rows of features", "Choose another `network.kind`.")
        return CrossNetwork(_cross_network_record(settings, outcomes, sizes["features"]))
    if isinstance(settings, PerceptronSettings):
        if "mean" not in sizes:
            raise SettingsError(
                "a perceptron is for tasks over a fixed number of values", "Choose another `network.kind`."
            )
        record = PerceptronRecord(
            outcomes=outcomes,
            hidden=settings.hidden,
            dropout=settings.dropout,
            mean=tuple(sizes["mean"]),
            scale=tuple(sizes["scale"]),
        )
        return Perceptron(record)
    if isinstance(settings, ConvolutionSettings):
        return _convolution(settings, outcomes, sizes or {})
    if isinstance(settings, BagOfNgramsSettings | TextEncoderSettings | HuggingFaceSettings):
        return new_text_network(settings, outcomes, sizes or {})
    if isinstance(settings, MatrixFactorizationSettings | TwoTowerSettings):
        return new_top_n_network(settings, outcomes, sizes)
    features = sizes.get(ITEM_FEATURES)
    if sizes.keys() - {ITEM_FEATURES}:
        raise SettingsError(
            "a causal transformer is for tasks over histories of items", "Choose another `network.kind`."
        )
    head_dim = settings.dim // settings.heads
    block = BlockRecord(heads=settings.heads, head_dim=head_dim, ffn_dim=settings.ffn_dim, scale=head_dim**-0.5)
    shape = CausalTransformerRecord(
        items=outcomes,
        max_length=settings.max_length,
        dim=settings.dim,
        tied=settings.tied,
        dropout=settings.dropout,
        # Not sqrt(dim), as in the original: with a tied table of small rows it costs a seventh of the NDCG.
        embedding_scale=1.0,
        blocks=(block,) * settings.blocks,
        features=None
        if features is None
        else ItemFeaturesRecord(rows=len(features.keys), columns=features.rows.shape[1]),
    )
    network = CausalTransformer(shape)
    if network.features is not None and features is not None:
        network.features.take(*features)
    return network


def _convolution(settings: ConvolutionSettings, outcomes: int, sizes: Mapping[str, Any]) -> Convolution:
    if "image" not in sizes:
        raise SettingsError("a convolution is for tasks over images", "Choose another `network.kind`.")
    _, rows, columns = shape = tuple(sizes["image"])
    if min(rows, columns) >> len(settings.halved_after) < 1:
        raise SettingsError(
            f"images of {rows} x {columns} cannot be halved {len(settings.halved_after)} times",
            "Shorten `network.halved_after`.",
        )
    # One mean and scale for all places, from those of each.
    means, scales = np.array(sizes["mean"]), np.array(sizes["scale"])
    mean = float(means.mean())
    record = ConvolutionRecord(
        outcomes=outcomes,
        shape=shape,
        channels=settings.channels,
        kernel=settings.kernel,
        halved_after=settings.halved_after,
        hidden=settings.hidden,
        dropout=settings.dropout,
        mean=mean,
        scale=float(np.sqrt((scales**2 + (means - mean) ** 2).mean())),
    )
    return Convolution(record)


def _cross_network_record(
    settings: CrossNetworkSettings, outcomes: int, features: Mapping[str, Any]
) -> CrossNetworkRecord:
    numbers = list(features["numbers"].values())
    left_out = () if settings.privileged else features["privileged"]
    single, bags = ({name: one for name, one in features[kind].items() if name not in left_out} for kind in _CATEGORIES)
    # What is left out has the last rows of the table.
    firsts = [one["first"] for kind in _CATEGORIES for name, one in features[kind].items() if name in left_out]
    window = features["history"]["window"] if features["history"] else 0
    return CrossNetworkRecord(
        outcomes=outcomes,
        rows=min(firsts, default=features["rows"]),
        dim=settings.dim,
        columns=features["columns"],
        single=len(single),
        passed_over=len(features["single"]) - len(single),
        bags=tuple(bag["most"] for bag in bags.values()),
        mean=tuple(number["mean"] for number in numbers),
        scale=tuple(number["scale"] for number in numbers),
        target=features["target"],
        max_length=min(settings.max_length, window),
        heads=settings.heads,
        attention_hidden=settings.attention_hidden,
        cross_ranks=settings.cross_ranks,
        hidden=settings.hidden,
        dropout=settings.dropout,
    )


_NETWORKS: dict[Any, tuple[Callable[[Any], PredictionNetwork], type[BaseModel]]] = {
    "causal_transformer": (CausalTransformer, CausalTransformerRecord),
    "perceptron": (Perceptron, PerceptronRecord),
    "convolution": (Convolution, ConvolutionRecord),
    "cross_network": (CrossNetwork, CrossNetworkRecord),
    "bag_of_ngrams": (BagOfNgrams, BagOfNgramsRecord),
    "text_encoder": (TextEncoder, TextEncoderRecord),
    "hugging_face": (PretrainedEncoder, PretrainedEncoderRecord),
    "matrix_factorization": (MatrixFactorization, MatrixFactorizationRecord),
    "two_tower": (TwoTower, TwoTowerRecord),
}


def network_of(record: dict[str, Any]) -> PredictionNetwork:
    """A network with the shape of an architecture record.

    Raises:
        IntegrityError: The record names no known network.
    """
    name = record.get("network")
    if name not in _NETWORKS:
        raise IntegrityError(f"unknown network {name!r} in an architecture record")
    kind, shape = _NETWORKS[name]
    return kind(shape.model_validate(record))


def read_network(folder: Path) -> PredictionNetwork:
    """The network in ``folder``, in evaluation mode.

    Raises:
        DataError: A file is missing.
        IntegrityError: The files are damaged, or the weights do not fit the record.
    """
    record, weights = read_checkpoint(folder)
    network = network_of(record)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise IntegrityError(f"the weights in {folder} do not fit their record: {error}") from None
    return network.eval()


def write_network(folder: Path, network: PredictionNetwork) -> None:
    """Write a network's record and weights into ``folder``, which must exist."""
    write_checkpoint(folder, network.record(), network.state_dict())
