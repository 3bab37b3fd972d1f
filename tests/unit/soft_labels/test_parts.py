from __future__ import annotations

import numpy as np
import pytest
import torch

from components.errors import IntegrityError
from components.soft_labels.codecs.building import codec_of
from components.soft_labels.manifest import CacheIdentity
from components.soft_labels.parts import content_of, part_bytes, part_columns, part_of, stored_bytes, uniforms_of

ROWS = 40
IDENTITY = CacheIdentity(teacher="a" * 64, dataset="b" * 64, codec={"name": "dense"}, outcomes=9, rows_per_part=10)
RECORDS = [
    ({"name": "dense"}, 9),
    ({"name": "logit"}, 1),
    ({"name": "top_k_tail", "k": 4, "hidden_dim": 6}, 300),
    ({"name": "sampled", "k": 4}, 300),
    ({"name": "top_k_sampled", "k": 4, "head": 1}, 70_000),
]


def encoded(record: dict, outcomes: int) -> dict[str, np.ndarray]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, outcomes, generator=generator)
    hidden = torch.randn(ROWS, record.get("hidden_dim", 0), generator=generator)
    codec = codec_of(record, outcomes)
    return codec.encode(logits, uniforms=np.full((ROWS, 1), 0.5), hidden=hidden)


@pytest.mark.parametrize("compression", ["none", "zstd"])
@pytest.mark.parametrize(("record", "outcomes"), RECORDS)
def test_a_part_of_any_codec_is_read_as_it_was_written(record: dict, outcomes: int, compression) -> None:
    codec, columns = codec_of(record, outcomes), encoded(record, outcomes)
    content = part_bytes(columns)
    stored = stored_bytes(content, compression)
    part = part_of(3, 30, ROWS, content, codec, compression=compression)
    assert (part.number, part.bytes, part.content_bytes) == (3, len(stored), len(content))
    assert part.compressed == (compression == "zstd") == (stored != content)
    assert 0 < part.top_mass <= part.kept_mass <= 1
    found = part_columns(content_of(stored, part), codec, ROWS, part.name)
    assert found.keys() == columns.keys()
    for name, column in columns.items():
        np.testing.assert_array_equal(found[name], column)


def test_compression_makes_a_part_smaller() -> None:
    content = part_bytes(encoded(*RECORDS[2]))
    assert len(stored_bytes(content, "zstd")) < len(content)


@pytest.mark.parametrize(
    "spoiled", [lambda b: b[:-9], lambda b: b"\0" * len(b), lambda b: b[:4] + b"\xff" * 9 + b[13:]]
)
def test_a_compressed_part_that_does_not_unpack_is_refused(spoiled) -> None:
    codec, content = codec_of(*RECORDS[3]), part_bytes(encoded(*RECORDS[3]))
    part = part_of(0, 0, ROWS, content, codec, compression="zstd")
    with pytest.raises(IntegrityError, match="part-00000"):
        content_of(spoiled(stored_bytes(content, "zstd")), part)
    other = part_bytes(encoded({"name": "sampled", "k": 4}, 301))
    with pytest.raises(IntegrityError, match="part-00000"):
        content_of(stored_bytes(other, "zstd"), part)


def test_random_numbers_belong_to_a_part_of_a_cache() -> None:
    numbers = uniforms_of(IDENTITY, 3, 10, 2)
    assert numbers is not None and numbers.shape == (10, 2) and 0 <= numbers.min() <= numbers.max() < 1
    again, elsewhere = uniforms_of(IDENTITY, 3, 10, 2), uniforms_of(IDENTITY, 4, 10, 2)
    of_another = uniforms_of(IDENTITY.model_copy(update={"teacher": "c" * 64}), 3, 10, 2)
    assert np.array_equal(numbers, again)
    assert not np.array_equal(numbers, elsewhere) and not np.array_equal(numbers, of_another)
    assert uniforms_of(IDENTITY, 3, 10, 0) is None
