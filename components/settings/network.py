"""``network`` of a teacher or student: the shape that it starts with."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from components.settings.base import Settings
from components.settings.text_network import BagOfNgramsSettings, HuggingFaceSettings, TextEncoderSettings
from components.settings.top_n_network import MatrixFactorizationSettings, TwoTowerSettings


class CausalTransformerSettings(Settings):
    """A causal transformer over item histories (SASRec, Kang & McAuley 2018, with pre-norm blocks)."""

    kind: Literal["causal_transformer"] = "causal_transformer"
    """The architecture."""
    dim: int = Field(default=64, ge=4)
    """Model width: the size of an item's row."""
    blocks: int = Field(default=2, ge=1)
    """Number of transformer blocks."""
    heads: int = Field(default=2, ge=1)
    """Attention heads a block; ``dim`` is divided among them."""
    ffn_dim: int = Field(default=256, ge=4)
    """Hidden channels of each block's feed-forward part."""
    max_length: int = Field(default=50, ge=2)
    """Events of a history that the network sees: the newest ones."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Dropout on embeddings and on what each block adds."""
    tied: bool = True
    """Score items with the table that also embeds them."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> CausalTransformerSettings:
        if self.dim % self.heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of heads ({self.heads})")
        return self


class PerceptronSettings(Settings):
    """Linear layers with ReLU between them, over a fixed number of values."""

    kind: Literal["perceptron"]
    """The architecture."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (64,)
    """Channels of each hidden layer; none makes a linear model."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout after each hidden layer."""

    @property
    def max_length(self) -> int:
        """There is no history."""
        return 0


class ConvolutionSettings(Settings):
    """Convolutions with ReLU over images, then linear layers."""

    kind: Literal["convolution"]
    """The architecture."""
    channels: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(16, 32), min_length=1)
    """Channels of each convolution."""
    kernel: int = Field(default=3, ge=1)
    """Rows and columns that a convolution reads; an odd number."""
    halved_after: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2)
    """Numbers of the convolutions, from 1, after which rows and columns are halved by the greatest of 2 x 2."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Channels of each linear layer before the last."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout before each linear layer."""

    @model_validator(mode="after")
    def _fits_itself(self) -> ConvolutionSettings:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel ({self.kernel}) must be an odd number, so that it has a middle")
        if len(set(self.halved_after)) < len(self.halved_after) or max(self.halved_after, default=0) > len(
            self.channels
        ):
            raise ValueError(f"halved_after names each of the {len(self.channels)} convolutions at most once")
        return self

    @property
    def max_length(self) -> int:
        """There is no history."""
        return 0


class CrossNetworkSettings(Settings):
    """A deep cross network over the features of a row, with attention over a history (DCN v2, Wang et al. 2021; DIN,
    Zhou et al. 2018). With ``cross_ranks: []``, ``hidden: []`` and ``attention_hidden: 0``: a logistic model of
    embeddings."""

    kind: Literal["cross_network"]
    """The architecture."""
    dim: int = Field(default=32, ge=2)
    """Width of the embedding of a category."""
    cross_ranks: tuple[Annotated[int, Field(ge=1)], ...] = (64, 64)
    """Rank of each cross layer's matrix."""
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = (128, 64)
    """Channels of each hidden layer after the crosses."""
    attention_hidden: int = Field(default=16, ge=0)
    """Hidden channels of the attention from the item over the history; 0: one mean of what came to a yes, and one of
    what did not."""
    heads: int = Field(default=4, ge=1)
    """Attention heads."""
    max_length: int = Field(default=50, ge=0)
    """Events of a history that the network sees: the newest ones, at most ``prepare.history.window``."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on the features and after each hidden layer."""
    privileged: bool = False
    """Reads what ``prepare.privileged`` names as well: for a teacher (Xu et al., "Privileged Features Distillation at
    Taobao Recommendations", KDD 2020)."""


def _kind_of(value: Any) -> str:
    default = "causal_transformer"
    return str(value.get("kind", default) if isinstance(value, dict) else getattr(value, "kind", default))


NetworkSettings = (
    CausalTransformerSettings
    | PerceptronSettings
    | ConvolutionSettings
    | CrossNetworkSettings
    | BagOfNgramsSettings
    | TextEncoderSettings
    | MatrixFactorizationSettings
    | TwoTowerSettings
    | HuggingFaceSettings
)
"""Any of them."""
NetworkSection = Annotated[
    Annotated[CausalTransformerSettings, Tag("causal_transformer")]
    | Annotated[PerceptronSettings, Tag("perceptron")]
    | Annotated[ConvolutionSettings, Tag("convolution")]
    | Annotated[CrossNetworkSettings, Tag("cross_network")]
    | Annotated[BagOfNgramsSettings, Tag("bag_of_ngrams")]
    | Annotated[TextEncoderSettings, Tag("text_encoder")]
    | Annotated[HuggingFaceSettings, Tag("hugging_face")]
    | Annotated[MatrixFactorizationSettings, Tag("matrix_factorization")]
    | Annotated[TwoTowerSettings, Tag("two_tower")],
    Discriminator(_kind_of),
]
"""As it stands in params.yaml; a causal transformer need not say what it is."""
