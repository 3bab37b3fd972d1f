from __future__ import annotations

import json

import pytest

from components.errors import IntegrityError
from components.soft_labels.manifest import CacheIdentity, Manifest, Part, part_name, read_manifest, written

IDENTITY = CacheIdentity(
    teacher="a" * 64, dataset="b" * 64, codec={"name": "top_k_tail", "k": 4}, outcomes=9, rows_per_part=10
)


def part(number: int, rows: int) -> Part:
    sha256 = f"{number:064x}"[::-1]
    name = part_name(number, sha256)
    return Part(
        name=name,
        first=10 * number,
        rows=rows,
        bytes=99,
        sha256=sha256,
        content_bytes=99,
        content_sha256=sha256,
        top_mass=0.5,
        kept_mass=0.75,
    )


MANIFEST = Manifest(
    **IDENTITY.model_dump(), id=IDENTITY.cache_id, rows=25, parts=(part(0, 10), part(1, 10), part(2, 5))
)


def changed(**changes) -> bytes:
    return json.dumps(json.loads(written(MANIFEST)) | changes).encode()


def with_part(number: int, **changes) -> bytes:
    parts = json.loads(written(MANIFEST))["parts"]
    parts[number] |= changes
    return changed(parts=parts)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert read_manifest(written(MANIFEST), "here") == MANIFEST
    assert MANIFEST.bytes == 3 * 99
    assert MANIFEST.mean("kept_mass") == 0.75


@pytest.mark.parametrize(
    "change",
    [
        {"teacher": "c" * 64},
        {"dataset": "c" * 64},
        {"codec": {"name": "dense"}},
        {"outcomes": 8},
        {"rows_per_part": 9},
        {"compression": "zstd"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_cache_id_covers_everything_the_content_depends_on(change: dict) -> None:
    assert IDENTITY.model_copy(update=change).cache_id != IDENTITY.cache_id
    with pytest.raises(IntegrityError, match="here"):
        read_manifest(changed(**change), "here")


PARTS = json.loads(written(MANIFEST))["parts"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        written(MANIFEST)[:-20],
        changed(format=1),
        changed(surprise=1),
        changed(rows=24),
        changed(rows=26),
        changed(parts=[]),
        changed(parts=PARTS[:2]),
        changed(parts=PARTS[1:]),
        changed(parts=[PARTS[0], PARTS[2], PARTS[1]]),
        changed(parts=[PARTS[0], PARTS[0], PARTS[2]]),
        with_part(1, first=9),
        with_part(1, first=11),
        with_part(1, rows=9),
        with_part(0, rows=-10),
        with_part(0, sha256="A" * 64),
        with_part(0, content_bytes=98),
        with_part(0, content_sha256="c" * 64),
        with_part(0, name=PARTS[0]["name"] + ".zst"),
        with_part(0, name=PARTS[0]["name"] + ".zst", content_bytes=98),
        with_part(0, name="../../etc/passwd"),
        with_part(0, name="/etc/passwd"),
        with_part(0, name="part-00000-../x.safetensors"),
        with_part(0, name=PARTS[1]["name"]),
        with_part(0, name=PARTS[0]["name"] + "\n"),
    ],
)
def test_a_manifest_that_is_not_whole_or_points_elsewhere_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError, match="here is not a whole manifest"):
        read_manifest(content, "here")
