"""Whose signatures count in a checkout, and the key that signs there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from components.errors import SettingsError
from flows.repository import keys_of

if TYPE_CHECKING:
    from components.provenance.signing import PublicKey, SigningKey


class _TrustedKeys(Sequence["PublicKey"]):
    """Read when the first signature is checked, and then once: an empty store needs no key."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._keys: tuple[PublicKey, ...] = ()

    def _all(self) -> tuple[PublicKey, ...]:
        from components.provenance.signing import trusted_keys

        self._keys = self._keys or trusted_keys(keys_of(self._root))
        return self._keys

    @overload
    def __getitem__(self, index: int) -> PublicKey: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[PublicKey]: ...
    def __getitem__(self, index: int | slice) -> PublicKey | Sequence[PublicKey]:
        return self._all()[index]

    def __len__(self) -> int:
        return len(self._all())

    def __iter__(self) -> Iterator[PublicKey]:
        return iter(self._all())


def trusted(root: Path) -> Sequence[PublicKey]:
    """The keys whose signatures count in a checkout. They are read when the first signature is checked.

    Raises:
        SettingsError: When they are used: there is none, or one cannot be read.
    """
    return _TrustedKeys(root)


def signer(root: Path, otherwise: str) -> SigningKey:
    """The key that signs in a checkout; made here on first use when none is given.

    Args:
        root: The checkout.
        otherwise: What would become of a signature that nobody trusts, for the message.

    Raises:
        SettingsError: It cannot be read, or is not among those that are trusted here.
        StorageError: A new one cannot be written.
    """
    from components.provenance.signing import TRUSTED_VARIABLE, signing_key, trusted_keys

    key = signing_key(keys_of(root))
    if key.public.id not in {one.id for one in trusted_keys(keys_of(root))}:
        raise SettingsError(
            f"the key that signs here, {key.public.id[:12]}, is not trusted: {otherwise}",
            f"Add its public key to {TRUSTED_VARIABLE}, here and wherever models are served, or set "
            "RECSTILL_SIGNING_KEY to a key that is trusted.",
        )
    return key
