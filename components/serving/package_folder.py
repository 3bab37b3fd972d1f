"""The files of a package, and reading them so that no byte is used that was not verified."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from components.errors import DataError, IntegrityError
from components.storage.atomic import read_json

FORMAT = 1
RECORD = "package.json"
MODEL = "model.onnx"
INDEX = "model.faiss"
VOCABULARY = "vocabulary.parquet"
SIGNATURE = "signature.json"
GOLDEN = "golden.json"
CARD = "model_card.md"
GATE = "gate.json"
BUNDLE = "provenance.intoto.jsonl"
BOM = "bom.cdx.json"
ATTESTATION = "attestation.dsse.json"
# What a release adds to a package; the attestation, not the record, lists it.
_OF_RELEASE = (GATE, BUNDLE, BOM, ATTESTATION)
_AGAIN = "Take a fresh copy of the package."


class PackageFolder:
    """A package on disk. Every file is checked against ``package.json`` when this is made.

    A package may be made of others, each in a folder of its own: then it lists the SHA-256 of their ``package.json``.

    Args:
        folder: The package, anywhere: it needs no checkout.

    Attributes:
        record: ``package.json``.
        parts: The packages that it is made of, by the name of their folder; empty for a model.

    Raises:
        DataError: It is no package, or of a later format.
        IntegrityError: A file is missing, is not what the record says, or is not listed; the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / RECORD).is_file():
            raise DataError(f"{folder} is not a package: there is no {RECORD}", "Name a folder that `package` wrote.")
        self.record = read_json(folder / RECORD)
        if not isinstance(self.record, dict) or self.record.get("format") != FORMAT:
            raise DataError(
                f"{folder / RECORD} is not of format {FORMAT}", "Use the version of Recstill that made the package."
            )
        parts = parts_of(self.record, folder)
        self._files = _listed(self.record, folder, (GOLDEN,) if parts else (MODEL, VOCABULARY, SIGNATURE, GOLDEN))
        self.parts = {name: _part(folder / name, expected) for name, expected in parts.items()}
        for path in folder.iterdir():
            if path.name not in (RECORD, *_OF_RELEASE, *self._files, *parts):
                raise IntegrityError(f"{path} does not belong to the package: {RECORD} does not list it", _AGAIN)
        for name in self._files:
            self.read(name)

    def read(self, name: str) -> bytes:
        """The verified bytes of a file: what was hashed is what is returned.

        Raises:
            IntegrityError: The file is missing, or differs from the record.
        """
        path = self.folder / name
        if name not in self._files:
            raise IntegrityError(f"{self.folder / RECORD} does not list {name}", _AGAIN)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise IntegrityError(f"{path} cannot be read: {error.strerror}", _AGAIN) from None
        expected = self._files[name]
        found = hashlib.sha256(content).hexdigest()
        if found != expected:
            raise IntegrityError(
                f"{path} is not the file that the package was made with: its SHA-256 is {found}, not {expected}", _AGAIN
            )
        return content


def parts_of(record: dict[str, Any], folder: Path) -> dict[str, str]:
    """SHA-256 of the ``package.json`` of each part, by the name of its folder.

    Raises:
        IntegrityError: The record lists them in no way that it could.
    """
    try:
        parts = {str(name): str(entry["package"]) for name, entry in (record.get("parts") or {}).items()}
    except (KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{folder / RECORD} does not list the package's parts", _AGAIN) from None
    for name in parts:
        if Path(name).name != name or name in ("", ".", ".."):
            raise IntegrityError(f"{folder / RECORD} lists {name!r}, which is not a folder of the package", _AGAIN)
    return parts


def _part(folder: Path, expected: str) -> PackageFolder:
    try:
        found = hashlib.sha256((folder / RECORD).read_bytes()).hexdigest()
    except OSError as error:
        raise IntegrityError(f"{folder / RECORD} cannot be read: {error.strerror}", _AGAIN) from None
    if found != expected:
        raise IntegrityError(
            f"{folder} is not the package that this one was made with: the SHA-256 of its {RECORD} is {found}, "
            f"not {expected}",
            _AGAIN,
        )
    return PackageFolder(folder)


def _listed(record: dict[str, Any], folder: Path, needed: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 by file name, as the record lists them."""
    try:
        files = {str(name): str(entry["sha256"]) for name, entry in record["files"].items()}
    except (KeyError, TypeError, AttributeError):
        raise IntegrityError(f"{folder / RECORD} does not list the package's files", _AGAIN) from None
    for name in files:
        if Path(name).name != name or name in ("", ".", ".."):
            raise IntegrityError(f"{folder / RECORD} lists {name!r}, which is not a file of the package", _AGAIN)
    for name in needed:
        if name not in files:
            raise IntegrityError(f"{folder / RECORD} does not list {name}", _AGAIN)
    return files
