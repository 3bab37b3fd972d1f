"""A part's bytes: a safetensors file whose arrays can be used where they lie."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping
from typing import Literal

import numpy as np
import zstandard
from safetensors.numpy import save

from components.errors import IntegrityError
from components.soft_labels.codecs.base import Codec
from components.soft_labels.manifest import CacheIdentity, Part, part_name

# The types that codecs use, by their names in the format.
_TYPES = {"F16": "<f2", "U8": "|u1", "U16": "<u2", "I32": "<i4"}
# Machines need not agree on the last digit of a mean.
_TOLERATED_DIFFERENCE = 2e-6
# Half precision hardly compresses, and ids do: a higher level costs more than it saves.
_ZSTD_LEVEL = 3


def part_bytes(columns: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a safetensors file; the same arrays give the same bytes."""
    return save({name: np.ascontiguousarray(columns[name]) for name in sorted(columns)})


def stored_bytes(content: bytes, compression: Literal["none", "zstd"]) -> bytes:
    """The object that holds a part."""
    return content if compression == "none" else zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(content)


def content_of(stored: bytes, part: Part) -> bytes:
    """The safetensors file that an object holds, checked.

    Args:
        stored: The object, whose digest has been checked.
        part: Its record.

    Raises:
        IntegrityError: It cannot be unpacked, or holds something else.
    """
    if not part.compressed:
        return stored
    try:
        # Asked first: a damaged length must not take all memory.
        if zstandard.frame_content_size(stored) != part.content_bytes:
            raise IntegrityError(f"{part.name} does not hold {part.content_bytes:,} bytes")
        content: bytes = zstandard.ZstdDecompressor().decompress(stored)
    except zstandard.ZstdError as error:
        raise IntegrityError(f"{part.name} cannot be unpacked: {error}") from None
    if hashlib.sha256(content).hexdigest() != part.content_sha256:
        raise IntegrityError(f"{part.name} holds other content than its record says")
    return content


def part_of(
    number: int,
    first: int,
    rows: int,
    content: bytes,
    codec: Codec,
    *,
    compression: Literal["none", "zstd"] = "none",
    stored: bytes | None = None,
) -> Part:
    """The record of a part, all of it derived from its place and its bytes.

    Args:
        number: Place in the cache.
        first: Its first point.
        rows: How many points.
        content: The safetensors file.
        codec: What wrote it.
        compression: How the object is packed.
        stored: The object, when it is at hand; else made of the content.

    Raises:
        IntegrityError: The content is not ``rows`` rows of this codec.
    """
    stored = stored_bytes(content, compression) if stored is None else stored
    sha256 = hashlib.sha256(stored).hexdigest()
    compressed = compression != "none"
    name = part_name(number, sha256, compressed)
    top_mass, kept_mass = codec.masses(part_columns(content, codec, rows, name))
    return Part(
        name=name,
        first=first,
        rows=rows,
        bytes=len(stored),
        sha256=sha256,
        content_bytes=len(content),
        content_sha256=hashlib.sha256(content).hexdigest() if compressed else sha256,
        top_mass=_mean(top_mass),
        kept_mass=_mean(kept_mass),
    )


def describes(part: Part, stored: bytes, codec: Codec) -> bool:
    """Whether an object is in everything what a record says of it, down to the means.

    Args:
        part: The record.
        stored: The object, whose digest has been checked.
        codec: What wrote it.

    Raises:
        IntegrityError: It cannot be unpacked, or does not hold rows of this codec.
    """
    content = content_of(stored, part)
    compression: Literal["none", "zstd"] = "zstd" if part.compressed else "none"
    found = part_of(part.number, part.first, part.rows, content, codec, compression=compression, stored=stored)
    means = {"top_mass": part.top_mass, "kept_mass": part.kept_mass}
    near = all(abs(getattr(found, name) - mean) <= _TOLERATED_DIFFERENCE for name, mean in means.items())
    return near and found.model_copy(update=means) == part


def uniforms_of(identity: CacheIdentity, number: int, rows: int, per_row: int) -> np.ndarray | None:
    """The random numbers ``(rows, per_row)`` float64 of a part: the same whoever scores it, in whatever batches.

    From NumPy's Philox (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011) with the cache id and the
    part's number as its key. None when a row takes none.
    """
    if per_row == 0:
        return None
    seed = np.random.SeedSequence([int(identity.cache_id, 16), number])
    return np.random.Generator(np.random.Philox(seed)).random((rows, per_row))


def part_columns(content: bytes | mmap.mmap, codec: Codec, rows: int, where: str) -> dict[str, np.ndarray]:
    """The arrays in a part, as views of its bytes (safetensors' own readers copy them).

    The format: eight bytes with the length of a JSON header, the header, then the arrays at the offsets it names.

    Args:
        content: A part whose digest has been checked, in memory or mapped.
        codec: What wrote it.
        rows: How many points it holds.
        where: Object or file, for messages.

    Raises:
        IntegrityError: The arrays are not those of this codec and this many rows.
    """
    data = np.frombuffer(content, dtype=np.uint8)
    try:
        header_bytes = int.from_bytes(data[:8].tobytes(), "little")
        start = 8 + header_bytes
        header = json.loads(data[8:start].tobytes())
        header.pop("__metadata__", None)
        found = {}
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            values = data[start + begin : start + end].view(_TYPES[entry["dtype"]])
            found[name] = values.reshape(entry["shape"])
    except (ValueError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise IntegrityError(f"{where} is not a part of soft labels: {error}") from None
    expected = {name: (column.dtype, (rows, *column.shape)) for name, column in codec.columns.items()}
    if {name: (array.dtype, array.shape) for name, array in found.items()} != expected:
        raise IntegrityError(f"{where} does not hold {rows} rows of {codec.record()['name']} labels")
    return found


def _mean(masses: np.ndarray) -> float:
    return round(float(masses.mean(dtype=np.float64)), 6)
