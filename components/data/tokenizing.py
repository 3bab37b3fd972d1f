"""Tokens of texts: byte pairs learned from the training texts, by the ``tokenizers`` library.

Words end at white space and punctuation, and every Chinese character is a word, so that one tokenizer serves both. The
library's WordPiece trainer would do too, but it gives another vocabulary each time: it numbers pieces in the order in
which a hash table happens to hold the words (0.23.3).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.trainers import BpeTrainer

from components.errors import DataError
from components.settings.text_prepare import TextPrepareSettings

PADDING, UNKNOWN = "[PAD]", "[UNK]"


def trained_tokenizer(texts: Iterable[str], settings: TextPrepareSettings) -> Tokenizer:
    """A tokenizer learned from texts; the same texts and settings give the same one.

    Args:
        texts: Of the training split, and of no other.
        settings: Size of the vocabulary, and how rare a word may be.
    """
    tokenizer = Tokenizer(BPE(unk_token=UNKNOWN, fuse_unk=True))
    # Control characters go, white space is one space, accents and case are dropped.
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = BpeTrainer(
        vocab_size=settings.vocabulary,
        min_frequency=settings.min_frequency,
        special_tokens=[PADDING, UNKNOWN],
        # Of a script of many characters the rarest are unknown; half of the vocabulary is left for words.
        limit_alphabet=settings.vocabulary // 2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def read_tokenizer(content: bytes, where: str) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``.

    Args:
        content: Of the file.
        where: Its name, for messages.

    Raises:
        DataError: It is none.
    """
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    except Exception as error:  # The library has no exception of its own.
        raise DataError(f"{where} is no tokenizer.json: {error}", "Name a file of the tokenizers library.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def read_tokenizer_file(path: Path) -> Tokenizer:
    """The tokenizer in a file.

    Raises:
        DataError: The file is missing, or is none.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}", "Correct prepare.tokenizer in params.yaml."
        ) from None
    return read_tokenizer(content, str(path))


def tokens_of(tokenizer: Tokenizer, texts: Sequence[str], max_tokens: int) -> list[np.ndarray]:
    """The first tokens of each text, int32; none of a text in which there is nothing but white space and control.

    Args:
        tokenizer: Of the data set.
        texts: Any.
        max_tokens: How many are kept of each.
    """
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.array(each.ids[:max_tokens], dtype=np.int32) for each in encoded]


def words_of(tokenizer: Tokenizer, text: str) -> list[str]:
    """The words that tokens are made of, for models of whole words."""
    plain = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
    if tokenizer.pre_tokenizer is None:
        return plain.split()
    return [word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(plain)]
