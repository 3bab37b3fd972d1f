"""The record of a cache: of which teacher and data set it is, and which bytes belong to it."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from components.errors import IntegrityError
from components.storage.digests import record_digest

FORMAT: Literal[2] = 2
MANIFEST_NAME = "manifest.json"
TEACHER_TEMPERATURE, TEACHER_SHIFT = "teacher_temperature", "teacher_shift"
"""Key in the codec of a calibrated teacher; a teacher as it is has none, so that its caches keep their ids."""
_DIGEST = r"^[0-9a-f]{64}$"
_PART_NAME = re.compile(r"part-(\d{5,})-([0-9a-f]{16})\.safetensors(\.zst)?")


class Part(BaseModel):
    """One object of a cache: a run of rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """``part-00000-<first 16 digits of sha256>.safetensors``, so that no writer can replace another's bytes; with
    ``.zst`` behind it when the object is compressed."""
    first: int = Field(ge=0)
    """The first prediction point."""
    rows: int = Field(ge=1)
    """How many points."""
    bytes: int = Field(ge=1)
    """Of the object in the store."""
    sha256: str = Field(pattern=_DIGEST)
    """Of the object in the store."""
    content_bytes: int = Field(ge=1)
    """Of the safetensors file: the object itself, or what it holds compressed."""
    content_sha256: str = Field(pattern=_DIGEST)
    """Of the safetensors file."""
    top_mass: float
    """Mean over the rows of the largest probability that is stored: the teacher's largest, unless labels are drawn."""
    kept_mass: float
    """Mean over the rows of the mass of the outcomes that are stored singly."""

    @model_validator(mode="after")
    def _named_by_its_bytes(self) -> Part:
        found = _PART_NAME.fullmatch(self.name)
        if found is None or found[2] != self.sha256[:16]:
            raise ValueError(f"{self.name[:80]!r} is not the name of this part")
        as_it_is = (self.bytes, self.sha256) == (self.content_bytes, self.content_sha256)
        if as_it_is == self.compressed:
            raise ValueError(f"{self.name} does not say whether it is compressed")
        return self

    @property
    def compressed(self) -> bool:
        """Whether the object holds the content compressed."""
        return self.name.endswith(".zst")

    @property
    def number(self) -> int:
        """Its place in the cache, from 0."""
        return int(self.name.split("-")[1])


class CacheIdentity(BaseModel):
    """What a cache is of. Same identity, same content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[2] = FORMAT
    teacher: str = Field(pattern=_DIGEST)
    """Digest of the teacher."""
    dataset: str = Field(pattern=_DIGEST)
    """Digest of the prepared data set."""
    codec: dict[str, Any]
    """Name and settings of the codec."""
    outcomes: int = Field(ge=1)
    """K."""
    compression: Literal["none", "zstd"] = "none"
    """How parts are packed."""
    rows_per_part: int = Field(ge=1)

    @property
    def teacher_temperature(self) -> float:
        """By what the teacher's logits were divided before they were stored; 1 for a teacher as it is."""
        return float(self.codec.get(TEACHER_TEMPERATURE, 1.0))

    @property
    def teacher_shift(self) -> float:
        """What was added to the teacher's logit of a yes after that; 0 for a teacher as it is."""
        return float(self.codec.get(TEACHER_SHIFT, 0.0))

    @property
    def cache_id(self) -> str:
        """SHA-256 over all of it."""
        return record_digest(self.model_dump(mode="json", include=set(CacheIdentity.model_fields)))

    def key(self, name: str) -> str:
        """Key in the object store of something that belongs to the cache."""
        return f"soft-labels/{self.cache_id}/{name}"


class Manifest(CacheIdentity):
    """A complete cache. Written after all its parts."""

    id: str = Field(pattern=_DIGEST)
    """The cache id."""
    rows: int = Field(ge=1)
    """P, all prediction points."""
    parts: tuple[Part, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> Manifest:
        if self.id != self.cache_id:
            raise ValueError("the cache id does not follow from what the manifest says")
        expected = 0
        for number, part in enumerate(self.parts):
            if part.first != expected or part.number != number:
                raise ValueError(f"{part.name} begins at row {part.first}, not at {expected}")
            if part.compressed != (self.compression == "zstd"):
                raise ValueError(f"{part.name} is not packed as the manifest says")
            if part.rows != min(self.rows_per_part, self.rows - expected):
                raise ValueError(f"{part.name} has {part.rows} rows")
            expected += part.rows
        if expected != self.rows:
            raise ValueError(f"the parts hold {expected} rows, not {self.rows}")
        return self

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    def mean(self, of: Literal["top_mass", "kept_mass"]) -> float:
        """Mean over all rows of a figure that the parts hold."""
        return sum(getattr(part, of) * part.rows for part in self.parts) / self.rows


def part_name(number: int, sha256: str, compressed: bool = False) -> str:
    """Name of the part with this place and these bytes."""
    return f"part-{number:05d}-{sha256[:16]}.safetensors{'.zst' if compressed else ''}"


def record_name(number: int) -> str:
    """Name of the record of the part with this place."""
    return f"part-{number:05d}.json"


def written(record: BaseModel) -> bytes:
    """A record as JSON with sorted keys; the same record gives the same bytes."""
    return (json.dumps(record.model_dump(mode="json"), indent=2, sort_keys=True) + "\n").encode()


def read_manifest(content: bytes, where: str) -> Manifest:
    """Parse a manifest and check that it is whole.

    Args:
        content: The JSON.
        where: File or object, for messages.

    Raises:
        IntegrityError: It is not a manifest, names a part outside its cache, or its rows have gaps or overlap.
    """
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors()[0]
        key = ".".join(str(part) for part in problem["loc"])
        reason = problem["msg"].removeprefix("Value error, ")
        raise IntegrityError(
            f"{where} is not a whole manifest of soft labels: {f'{key}: ' if key else ''}{reason}",
            "Run `recstill run SCENARIO --from soft_labels --force` (with your scenario's name).",
        ) from None
