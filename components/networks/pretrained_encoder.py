"""A pretrained encoder of Hugging Face's ``transformers``, fine-tuned as a teacher; the library is an optional extra.

The folder is read once, when training begins. From then on the network is its architecture record, which holds the
whole configuration, and its weights, like any other. Weights come from safetensors alone: the library's older files are
pickles.
"""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from components.errors import DataError, IntegrityError, SettingsError
from components.networks.bag_of_ngrams import kept_tokens
from components.networks.contract import RecordedNetwork
from components.settings.text_network import HuggingFaceSettings
from components.storage.digests import file_digest

CONFIG, WEIGHTS = "config.json", "model.safetensors"


class PretrainedEncoderRecord(BaseModel):
    """Everything that is needed to rebuild the network for its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["hugging_face"] = "hugging_face"
    outcomes: int
    max_length: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    dropout: float
    encoder: dict[str, Any]
    """The content of ``config.json``."""
    pretrained: str
    """SHA-256 of the weights that it began with."""


class PretrainedEncoder(RecordedNetwork[PretrainedEncoderRecord]):
    """From the tokens of texts to logits ``(N, K)``; it has no served form, its student has.

    Args:
        record: Its shape.
        encoder: With weights; None: of the shape that the record says.
    """

    def __init__(self, record: PretrainedEncoderRecord, encoder: nn.Module | None = None) -> None:
        super().__init__(record)
        self.encoder = _new_encoder(record.encoder) if encoder is None else encoder
        self.last = nn.Linear(_width(self.encoder), record.outcomes)
        self.dropout = nn.Dropout(record.dropout)

    @property
    def hidden_dim(self) -> int:
        """Width of the encoder's states."""
        return self.last.in_features

    def encode(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(N, hidden_dim)`` of tokens ``(N, length)`` int64, padded on the right."""
        tokens, length = framed(tokens, length, self._record.before, self._record.after)
        counted = kept_tokens(tokens, length, 0.0)
        states = self.encoder(input_ids=tokens, attention_mask=counted.long()).last_hidden_state
        weights = counted.to(states.dtype)
        mean = (weights[:, None] @ states).squeeze(1) / weights.sum(1, keepdim=True)
        return self.dropout(mean)

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits ``(N, K)``."""
        return self.last(hidden)

    def copied_scorer(self) -> nn.Module:
        """The last layer."""
        return copy.deepcopy(self.last)


def framed(
    tokens: torch.Tensor, length: torch.Tensor, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Texts with tokens before and after each, and their new lengths.

    Args:
        tokens: ``(N, L)`` int64, padded on the right.
        length: ``(N,)``.
        before, after: Numbers of tokens.
    """
    rows, room = len(tokens), torch.zeros(len(tokens), len(after), dtype=tokens.dtype, device=tokens.device)
    first = torch.tensor(before, dtype=tokens.dtype, device=tokens.device).expand(rows, -1)
    found = torch.cat([first, tokens, room], dim=1)
    for place, token in enumerate(after):
        found.scatter_(1, (len(before) + length + place)[:, None], token)
    return found, length + len(before) + len(after)


def pretrained_encoder(settings: HuggingFaceSettings, outcomes: int, vocabulary: int) -> PretrainedEncoder:
    """The encoder of a folder with a new last layer.

    Args:
        settings: Where it lies, and which weights it has.
        outcomes: K.
        vocabulary: Tokens of the data set's tokenizer.

    Raises:
        DataError: A file is missing or cannot be read.
        IntegrityError: The weights are others.
        SettingsError: The library is not installed, or the model does not fit tokenizer or settings.
    """
    folder = Path(settings.path)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name} is missing",
                f"`network.path` is the folder of a model with {CONFIG} and {WEIGHTS}; other forms of weights are not "
                "read: save them again with `save_pretrained`.",
            )
    if (found := file_digest(folder / WEIGHTS)) != settings.sha256:
        raise IntegrityError(
            f"{folder / WEIGHTS} has the SHA-256 {found}, not {settings.sha256}",
            "Bring the right weights, or correct `network.sha256` in params.yaml.",
        )
    library = _library()
    try:
        encoder = library.AutoModel.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise DataError(f"the model in {folder} cannot be read: {reason}", "Name the folder of an encoder.") from None
    places = getattr(encoder.config, "max_position_embeddings", None)
    longest = settings.max_length + len(settings.before) + len(settings.after)
    if places is not None and longest > places:
        raise SettingsError(
            f"the model in {folder} reads {places} tokens at most, and max_length asks for {longest}",
            "Lower `network.max_length`.",
        )
    known = encoder.get_input_embeddings().num_embeddings
    if max(vocabulary - 1, *settings.before, *settings.after, 0) >= known:
        raise SettingsError(
            f"the model in {folder} knows {known:,} tokens, and the data set's tokenizer has {vocabulary:,}",
            "Set `prepare.tokenizer` to the model's own tokenizer.json.",
        )
    record = PretrainedEncoderRecord(
        outcomes=outcomes,
        encoder=encoder.config.to_dict(),
        pretrained=found,
        **settings.model_dump(include={"max_length", "before", "after", "dropout"}),
    )
    return PretrainedEncoder(record, encoder)


def _new_encoder(config: dict[str, Any]) -> nn.Module:
    library = _library()
    encoder: nn.Module = library.AutoModel.from_config(library.AutoConfig.for_model(**config), dtype=torch.float32)
    return encoder


def _width(encoder: nn.Module) -> int:
    return int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]


def _library() -> ModuleType:
    try:
        import transformers
    except ImportError:
        raise SettingsError(
            "a network of kind hugging_face needs the library transformers, which is not installed",
            "Install it: pip install 'recstill[transformers]'.",
        ) from None
    # What is new about a model is its last layer, and that is meant so.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    return transformers
