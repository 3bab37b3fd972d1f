"""From checked texts to the prepared data set: split, train the tokenizer on the training texts, make tokens of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from components.data.dataset import SPLITS
from components.data.points import TRAIN, write_points
from components.data.splitting_points import counted, split_by_label
from components.data.texts import TOKENIZER_FILE, TextDataset, content_digest, read_texts
from components.data.tokenizing import read_tokenizer_file, tokens_of, trained_tokenizer
from components.data.vocabulary import codes, vocabulary
from components.errors import DataError
from components.settings.text_prepare import TextPrepareSettings
from components.storage.atomic import new_folder
from components.storage.digests import file_digest


def prepare_texts(ingested: Path, folder: Path, settings: TextPrepareSettings, root: Path | None = None) -> list[str]:
    """Write the data set that :mod:`components.data.texts` describes, whole or not at all.

    Args:
        ingested: Folder of what ingest wrote.
        folder: Where the data set goes.
        settings: ``scenarios.<scenario>.prepare``.
        root: What the path of a given tokenizer starts from; None: the working folder.

    Raises:
        DataError: A split would be empty, training would see one label only, or the given tokenizer cannot be read.
    """
    texts, labels, source = read_texts(ingested)
    ids = vocabulary(texts["label"])
    label = codes(texts["label"], ids)
    apart = None if texts["is_test"].null_count() else texts["is_test"].to_numpy()
    split, seen = split_by_label(label, apart, settings, what="texts", labels=len(ids))
    if settings.tokenizer is None:
        tokenizer = trained_tokenizer(texts.filter(pl.Series(split == TRAIN))["text"].to_list(), settings)
    else:
        tokenizer = read_tokenizer_file((root or Path.cwd()) / settings.tokenizer)
    tokens = tokens_of(tokenizer, texts["text"].to_list(), settings.max_tokens)
    lengths = np.array([len(one) for one in tokens], dtype=np.int64)
    if lengths.min() == 0:
        row = texts.row(int(lengths.argmin()), named=True)
        raise DataError(
            f"row {row['row'] + 1:,} of the source has no token: {row['text'][:60]!r}", "Mend or remove it."
        )
    order = np.argsort(split, kind="stable")
    arranged = [tokens[place] for place in order]
    counts = np.bincount(split, minlength=len(SPLITS))
    dataset = TextDataset(
        record={},
        tokens=np.concatenate(arranged),
        offsets=np.concatenate([[0], lengths[order].cumsum()]),
        label=label[order].astype(np.int64),
        split=split[order],
        folder=folder,
    )
    with new_folder(folder) as temporary:
        (temporary / TOKENIZER_FILE).write_text(tokenizer.to_str(), encoding="utf-8")
        record: dict[str, Any] = {
            "format": 1,
            "digest": content_digest(dataset, ids.to_list(), file_digest(temporary / TOKENIZER_FILE)),
            "source_digest": source["digest"],
            "settings": settings.model_dump(mode="json"),
            "vocabulary": tokenizer.get_vocab_size(),
            "tokens": len(dataset.tokens),
            "cut_texts": int((lengths == settings.max_tokens).sum()),
            "users": 0,
            "items": len(ids),
            "events": len(texts),
            "points": int(counts[TRAIN]),
            "events_per_split": {name: int(count) for name, count in zip(SPLITS, counts, strict=True)},
        }
        table = pl.DataFrame(
            {
                "row": texts["row"].to_numpy()[order],
                "label": label[order],
                "text": texts["text"].gather(order),
                "tokens": pl.Series([one.tolist() for one in arranged], dtype=pl.List(pl.Int32)),
            }
        )
        write_points(temporary, table, dataset.split, counted(labels, ids, seen), record)
    parts = ", ".join(f"{count:,} {name}" for name, count in record["events_per_split"].items())
    return [
        f"{len(texts):,} texts of {len(ids)} labels: {parts}",
        f"{record['vocabulary']:,} tokens in the vocabulary, {lengths.mean():.0f} a text; "
        f"{record['cut_texts']:,} texts are cut after {settings.max_tokens}",
    ]
