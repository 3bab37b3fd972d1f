"""Signatures: DSSE envelopes with ed25519 keys, from a file, from the environment, or made on first use.

The envelope is the one of the "Dead Simple Signing Envelope", https://github.com/secure-systems-lab/dsse, as in-toto
and SLSA use it. ed25519 signs deterministically (RFC 8032): the same payload and key give the same envelope.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey

from components.errors import IntegrityError, SettingsError
from components.storage.atomic import clear_disk_errors, temporary_file

SIGNING_VARIABLE = "RECSTILL_SIGNING_KEY"
TRUSTED_VARIABLE = "RECSTILL_TRUSTED_KEYS"
LOCAL_KEY = "signing.pem"
_LARGEST_KEY = 1 << 16
_MAKE_ONE = "Make one: openssl genpkey -algorithm ed25519 -out signing.pem"


@dataclass(frozen=True)
class PublicKey:
    """What verifies signatures.

    Attributes:
        id: SHA-256 over the key in a canonical form, hexadecimal: how a signature names its key.
        pem: The key, SubjectPublicKeyInfo as PEM.
    """

    id: str
    pem: str
    key: SSlibKey = field(repr=False, compare=False)


@dataclass(frozen=True)
class SigningKey:
    """What makes signatures. It never shows its secret half.

    Attributes:
        public: The half that verifies.
        local: Made here on first use, and known to nobody else: its signatures tell that bytes are unchanged since,
            not who made them.
    """

    public: PublicKey
    local: bool
    signer: CryptoSigner = field(repr=False, compare=False)


def signing_key(folder: Path) -> SigningKey:
    """The key that signs here.

    Args:
        folder: Where a local key lies, or is made. The variable ``RECSTILL_SIGNING_KEY`` comes first: the path of an
            unencrypted ed25519 key in PEM, or its text.

    Raises:
        SettingsError: The key cannot be read.
        StorageError: The folder cannot be written.
    """
    given = os.environ.get(SIGNING_VARIABLE, "").strip()
    if given:
        text = given.encode() if "-----BEGIN" in given else _read(Path(given), SIGNING_VARIABLE)
        return _signing(text, SIGNING_VARIABLE, local=False)
    path = folder / LOCAL_KEY
    if not path.is_file():
        _make(path)
    return _signing(_read(path, str(path)), str(path), local=True)


def trusted_keys(folder: Path | None) -> tuple[PublicKey, ...]:
    """The keys whose signatures count.

    Args:
        folder: Where the local key lies. ``RECSTILL_TRUSTED_KEYS`` comes first: public keys in PEM, as text or as
            paths separated by ``:``. Without it, the key that signs here is the one that counts.

    Raises:
        SettingsError: There is none, or one cannot be read.
    """
    given = os.environ.get(TRUSTED_VARIABLE, "").strip()
    if given:
        if "-----BEGIN" in given:
            blocks = [f"-----BEGIN{block}" for block in given.split("-----BEGIN") if block.strip()]
            return tuple(_public(block.encode(), TRUSTED_VARIABLE) for block in blocks)
        paths = [Path(part) for part in given.split(os.pathsep) if part]
        return tuple(_public(_read(path, TRUSTED_VARIABLE), f"{TRUSTED_VARIABLE}: {path}") for path in paths)
    if os.environ.get(SIGNING_VARIABLE, "").strip():
        return (signing_key(Path()).public,)
    if folder is not None and (folder / LOCAL_KEY).is_file():
        return (signing_key(folder).public,)
    raise SettingsError(
        "no key is trusted, so no signature can be checked",
        f"Set {TRUSTED_VARIABLE} to the public key (PEM file) of whoever registers models.",
    )


def sign(payload: bytes, payload_type: str, key: SigningKey) -> bytes:
    """A DSSE envelope as JSON; the same payload and key give the same bytes."""
    envelope = Envelope(payload, payload_type, {})
    envelope.sign(key.signer)
    return (json.dumps(envelope.to_dict(), indent=2, sort_keys=True) + "\n").encode()


def verified(envelope: bytes, payload_type: str, keys: Sequence[PublicKey], what: str) -> tuple[bytes, str]:
    """The payload of an envelope that a trusted key has signed, and that key's id.

    Args:
        envelope: As :func:`sign` wrote it.
        payload_type: What it must hold.
        keys: Whose signatures count; one suffices.
        what: For messages: what was signed.

    Raises:
        IntegrityError: It is no envelope, of another type, or no trusted key has signed it.
    """
    try:
        parsed = Envelope.from_dict(json.loads(envelope))
    # Whatever is wrong with bytes that anyone may have written: the library raises in many ways.
    except Exception:
        raise IntegrityError(f"the signature of {what} is damaged: it is no DSSE envelope") from None
    if parsed.payload_type != payload_type:
        raise IntegrityError(f"the signed record of {what} is of type {parsed.payload_type!r}, not {payload_type!r}")
    try:
        by = parsed.verify([key.key for key in keys], 1)
    except (VerificationError, ValueError):
        signers = ", ".join(sorted(name[:12] for name in parsed.signatures)) or "nobody"
        trusted = ", ".join(key.id[:12] for key in keys)
        raise IntegrityError(
            f"no trusted key has signed {what}: signed by {signers}, trusted: {trusted}",
            f"If its signer is to be trusted, add that public key to {TRUSTED_VARIABLE}; else do not use it.",
        ) from None
    return bytes(parsed.payload), next(iter(by))


def _make(path: Path) -> None:
    """A new local key, readable by its owner alone; of two processes that make one, the first wins."""
    text = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with clear_disk_errors(path), temporary_file(path) as temporary:
        path.parent.chmod(0o700)
        temporary.chmod(0o600)
        temporary.write_bytes(text)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return


def _signing(text: bytes, where: str, *, local: bool) -> SigningKey:
    try:
        private = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise SettingsError(f"{where} holds no unencrypted ed25519 private key in PEM", _MAKE_ONE)
    key = SSlibKey.from_crypto(private.public_key())
    return SigningKey(_described(key, private.public_key()), local, CryptoSigner(private, key))


def _public(text: bytes, where: str) -> PublicKey:
    try:
        public: Any = serialization.load_pem_public_key(text)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        raise SettingsError(
            f"{where} holds no ed25519 public key in PEM",
            "Write it with: openssl pkey -in signing.pem -pubout -out signing.pub",
        )
    return _described(SSlibKey.from_crypto(public), public)


def _described(key: SSlibKey, public: Ed25519PublicKey) -> PublicKey:
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return PublicKey(str(key.keyid), pem.decode(), key)


def _read(path: Path, where: str) -> bytes:
    try:
        if path.stat().st_size > _LARGEST_KEY or not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError(f"{where}: {path} is no key", _MAKE_ONE)
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{where}: the key {path} cannot be read: {error.strerror}", _MAKE_ONE) from None
