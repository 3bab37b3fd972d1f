"""Everything that a release came from, by digest: what a recall of any of it has to find."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from components.errors import IntegrityError
from components.provenance.recalls import content_ids, plain_digest
from components.provenance.slsa_form import parsed
from components.provenance.stage_statement import StageStatement, payload_of
from components.serving.package_folder import BUNDLE
from components.serving.releases import Release
from components.storage.contract import ObjectStore

_SHA256 = re.compile(r"[0-9a-f]{64}")


def origin_ids(store: ObjectStore, release: Release) -> frozenset[str]:
    """What a recall may name of a release: all of its lineage, and of the statements of its stages where it has them.

    Their signatures are not asked for again: the release's own covers the file that holds them.

    Raises:
        MissingObjectError: The statements are gone.
        IntegrityError: They are not what was attested.
        StorageError: The store cannot be read.
    """
    found = set(content_ids(release))
    if BUNDLE in release.files:
        content = store.get(release.key(BUNDLE), release.files[BUNDLE])
        try:
            for line in content.splitlines():
                if line.strip():
                    found |= statement_ids(parsed(payload_of(line)))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise IntegrityError(f"{BUNDLE} of {release} is not of the form that this version reads") from None
    return frozenset(found)


def statement_ids(statement: StageStatement) -> set[str]:
    """What a stage read, ran and made, as digests: MD5 and SHA-256 of files, and what its outputs are as a whole."""
    ids = {
        *statement.outputs.values(),
        *statement.inputs.values(),
        *statement.code.values(),
        *statement.digests.values(),
        *statement.input_sha256.values(),
        *statement.byproducts.values(),
        *(digest for one in statement.subjects.values() for digest in (one.sha256, one.md5)),
        # A teacher that training started from is named by a parameter.
        *_digests_in(statement.params),
    }
    return {plain_digest(one) for one in ids if one}


def _digests_in(parameters: Any) -> Iterator[str]:
    if isinstance(parameters, str) and _SHA256.fullmatch(parameters):
        yield parameters
    elif isinstance(parameters, Mapping):
        for value in parameters.values():
            yield from _digests_in(value)
    elif isinstance(parameters, list | tuple):
        for value in parameters:
            yield from _digests_in(value)
