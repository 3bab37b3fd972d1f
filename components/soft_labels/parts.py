"""A part's bytes: a safetensors file whose arrays can be used where they lie."""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save

from components.errors import IntegrityError
from components.soft_labels.codec import Codec
from components.soft_labels.manifest import Part, part_name

# The types that codecs use, by their names in the format.
_TYPES = {"F16": "<f2", "U16": "<u2", "I32": "<i4"}


def part_bytes(columns: Mapping[str, np.ndarray]) -> bytes:
    """The arrays as a safetensors file; the same arrays give the same bytes."""
    return save({name: np.ascontiguousarray(columns[name]) for name in sorted(columns)})


def part_of(number: int, first: int, rows: int, content: bytes, codec: Codec) -> Part:
    """The record of a part, all of it derived from its place and its bytes.

    Raises:
        IntegrityError: The bytes are not ``rows`` rows of this codec.
    """
    sha256 = hashlib.sha256(content).hexdigest()
    name = part_name(number, sha256)
    log_probs = part_columns(content, codec, rows, name)["log_probs"].astype(np.float32)
    return Part(
        name=name,
        first=first,
        rows=rows,
        bytes=len(content),
        sha256=sha256,
        top_mass=_mean(np.exp(log_probs.max(axis=1))),
        kept_mass=_mean(np.exp(log_probs).sum(axis=1)),
    )


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
    # Half precision may add up to a little more than everything.
    return round(float(np.minimum(masses, 1.0).mean(dtype=np.float64)), 6)
