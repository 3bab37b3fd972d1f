"""The keyed name of a person: what a list or a sketch holds instead of an id.

HMAC-SHA256 over the id, cut to 12 bytes. Without the key nobody can try out ids; with it, whoever asks for one person
gets an answer about that person alone. Cut like this, two of a billion people share a name once in ten billion cases.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from components.errors import SettingsError
from components.storage.atomic import clear_disk_errors, temporary_file

SUBJECT_VARIABLE = "RECSTILL_SUBJECT_KEY"
LOCAL_KEY = "subject.key"
MARK_BYTES = 12
"""Bytes of a keyed name."""
_PURPOSE = b"recstill subject\0"
_SEAL = b"recstill sketch\0"
_KEY = re.compile(r"[0-9a-f]{64}")
_MAKE_ONE = "Make one: openssl rand -hex 32 > subject.key"
_LARGEST = 4096


@dataclass(frozen=True)
class SubjectKey:
    """What names people. It never shows its secret.

    Attributes:
        id: 16 hexadecimal digits by which it is known; they tell nothing of the secret.
        local: Made here on first use, and known to nobody else: whoever loses it cannot look for anybody any more.
    """

    id: str
    local: bool
    secret: bytes = field(repr=False)

    def mark(self, person: str) -> str:
        """The keyed name of an id: 24 hexadecimal digits."""
        return hmac.digest(self.secret, _PURPOSE + person.encode(), "sha256")[:MARK_BYTES].hex()

    def seal(self, content: bytes) -> str:
        """What only somebody who has the key can put under a record: HMAC-SHA256, 64 hexadecimal digits."""
        return hmac.digest(self.secret, _SEAL + content, "sha256").hex()

    def marks(self, people: Iterable[str]) -> dict[str, str]:
        """Keyed names by id."""
        return {person: self.mark(person) for person in people}


def subject_key(folder: Path) -> SubjectKey | None:
    """The key that is used here; None when there is none.

    Args:
        folder: Where a local one lies. The variable ``RECSTILL_SUBJECT_KEY`` comes first: 64 hexadecimal digits, or
            the path of a file that holds them.

    Raises:
        SettingsError: It cannot be read, or is no such key.
    """
    given = os.environ.get(SUBJECT_VARIABLE, "").strip()
    if given:
        text = given if _KEY.fullmatch(given) else _read(Path(given), SUBJECT_VARIABLE)
        return _key(text, SUBJECT_VARIABLE, local=False)
    path = folder / LOCAL_KEY
    return _key(_read(path, str(path)), str(path), local=True) if path.is_file() else None


def subject_key_made(folder: Path) -> SubjectKey:
    """The key that is used here; made on first use, readable by its owner alone.

    Raises:
        SettingsError: The key that there is cannot be read.
        StorageError: The folder cannot be written.
    """
    found = subject_key(folder)
    if found is not None:
        return found
    path = folder / LOCAL_KEY
    with clear_disk_errors(path), temporary_file(path) as temporary:
        path.parent.chmod(0o700)
        temporary.chmod(0o600)
        temporary.write_text(secrets.token_hex(32) + "\n", encoding="ascii")
        with contextlib.suppress(FileExistsError):  # of two processes that make one, the first wins
            os.link(temporary, path)
    return _key(_read(path, str(path)), str(path), local=True)


def _key(text: str, where: str, *, local: bool) -> SubjectKey:
    if not _KEY.fullmatch(text.strip()):
        raise SettingsError(f"{where} holds no key of 64 hexadecimal digits", _MAKE_ONE)
    secret = bytes.fromhex(text.strip())
    return SubjectKey(hashlib.sha256(b"recstill subject key id\0" + secret).hexdigest()[:16], local, secret)


def _read(path: Path, where: str) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SettingsError(f"{where}: {path} is no key", _MAKE_ONE)
        return path.read_text(encoding="ascii")
    except OSError as error:
        # The variable may hold a mistyped key: its text is not shown.
        shown = str(path) if where != SUBJECT_VARIABLE else "what it names"
        raise SettingsError(f"{where}: {shown} cannot be read: {error.strerror}", _MAKE_ONE) from None
    except UnicodeDecodeError:
        raise SettingsError(f"{where} holds no key of 64 hexadecimal digits", _MAKE_ONE) from None
