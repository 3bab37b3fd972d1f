"""What must be where: every object that a registered version needs, once, however many versions share it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from flows.auditing.findings import Finding


@dataclass
class Claim:
    """One object that has to be there, and what its bytes have to be.

    Attributes:
        place: ``remote``: DVC's. ``store``: the object store.
        object: The MD5 in the remote (``.dir`` behind it for a folder's listing), the key in the store.
        what: What it is, in words; the first of several names.
        sha256: Of its bytes, where something signed or content-addressed says so.
        md5: Of its bytes, where ``dvc.lock`` says so.
        remedy: What makes it again, beside a copy.
        versions: Which need it.
        content: The bytes, where something else that is sound gives them.
    """

    place: Literal["remote", "store"]
    object: str
    what: str
    sha256: str | None = None
    md5: str | None = None
    remedy: str = ""
    versions: set[str] = field(default_factory=set)
    content: bytes | None = field(default=None, repr=False)

    def finding(self, kind: Literal["missing", "corrupt"], where: str, problem: str) -> Finding:
        """That it is missing or corrupt."""
        return Finding(
            kind, self.place, self.object, where, self.what, problem, self.remedy, tuple(sorted(self.versions))
        )


class Ledger:
    """All claims, each object once."""

    def __init__(self) -> None:
        self._claims: dict[tuple[str, str], Claim] = {}
        self.contradictions: list[tuple[Claim, Claim]] = []
        """Pairs that want other bytes of the same object."""

    def add(self, claim: Claim) -> None:
        """Note a claim; one about an object that is known already adds what is new in it."""
        known = self._claims.setdefault((claim.place, claim.object), claim)
        if known is claim:
            return
        if known.sha256 and claim.sha256 and known.sha256 != claim.sha256:
            self.contradictions.append((known, claim))
        known.sha256 = known.sha256 or claim.sha256
        known.md5 = known.md5 or claim.md5
        known.content = known.content or claim.content
        known.remedy = known.remedy or claim.remedy
        known.versions |= claim.versions

    def get(self, place: str, name: str) -> Claim | None:
        """The claim about an object."""
        return self._claims.get((place, name))

    def __iter__(self) -> Iterator[Claim]:
        return iter(self._claims.values())

    def __len__(self) -> int:
        return len(self._claims)

    def __contains__(self, pair: tuple[str, str]) -> bool:
        return pair in self._claims
