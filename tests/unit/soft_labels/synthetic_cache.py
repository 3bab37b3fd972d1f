"""Caches of any size, with random content, written without a teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from components.soft_labels.codecs.building import codec_of
from components.soft_labels.labels import SoftLabels
from components.soft_labels.manifest import CacheIdentity, Manifest, Part, part_name
from components.soft_labels.parts import content_of, part_bytes, part_columns, part_of, stored_bytes
from components.storage.contract import ObjectStore

OUTCOMES = 5000
CODEC = {"name": "top_k_tail", "k": 16}


def synthetic_cache(
    store: ObjectStore,
    rows: int,
    rows_per_part: int,
    *,
    codec: Mapping[str, Any] = CODEC,
    outcomes: int = OUTCOMES,
    compression: Literal["none", "zstd"] = "none",
) -> Manifest:
    """Ids and log-probabilities at random; the same arguments give the same cache."""
    form = codec_of(codec, outcomes)
    identity = CacheIdentity(
        teacher="a" * 64,
        dataset="b" * 64,
        codec=form.record(),
        outcomes=outcomes,
        rows_per_part=rows_per_part,
        compression=compression,
    )
    random = np.random.default_rng(0)
    columns = {}
    for name, column in form.columns.items():
        shape = (min(rows, rows_per_part), *column.shape)
        whole = column.dtype.kind in "iu"
        values = random.integers(0, min(outcomes, 256), shape) if whole else -10 * random.random(shape, np.float32)
        columns[name] = values.astype(column.dtype)
    parts: list[Part] = []
    for number, first in enumerate(range(0, rows, rows_per_part)):
        size = min(rows_per_part, rows - first)
        # Other rows in each part, at a fraction of the time that new ones would take.
        content = part_bytes({name: np.roll(values, 7 * number, axis=0)[:size] for name, values in columns.items()})
        stored = stored_bytes(content, compression)
        if not parts:
            parts.append(part_of(number, first, size, content, form, compression=compression, stored=stored))
        else:
            # The means of the masses take longer than all the rest, and no test looks at them.
            digest = hashlib.sha256(stored).hexdigest()
            of_this = {
                "name": part_name(number, digest, compression != "none"),
                "first": first,
                "rows": size,
                "bytes": len(stored),
                "sha256": digest,
                "content_bytes": len(content),
                "content_sha256": hashlib.sha256(content).hexdigest(),
            }
            parts.append(Part(**parts[0].model_dump() | of_this))
        store.put(identity.key(parts[-1].name), stored, parts[-1].sha256)
    return Manifest(**identity.model_dump(), id=identity.cache_id, rows=rows, parts=tuple(parts))


def expected_labels(store: ObjectStore, manifest: Manifest, points: torch.Tensor) -> SoftLabels:
    """What a reader must find, from whole parts in memory."""
    form = codec_of(manifest.codec, manifest.outcomes)
    whole: dict[str, list[np.ndarray]] = {}
    for part in manifest.parts:
        content = content_of(store.get(manifest.key(part.name), part.sha256), part)
        for name, column in part_columns(content, form, part.rows, part.name).items():
            whole.setdefault(name, []).append(column)
    return form.decode({name: np.concatenate(pieces)[points.numpy()] for name, pieces in whole.items()})


def same_labels(one: SoftLabels, other: SoftLabels) -> bool:
    return one.outcomes == other.outcomes and all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a is b or a == b
        for a, b in zip(one, other, strict=True)
    )
