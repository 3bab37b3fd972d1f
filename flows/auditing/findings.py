"""What an audit finds: one object that is not as it should be, where it lies, and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["missing", "corrupt", "orphan", "signature", "mismatch", "forged", "truncated"]
Place = Literal["remote", "store", "git"]
Severity = Literal["damage", "note"]
_SHOWN_VERSIONS = 5


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: ``missing``: not there. ``corrupt``: other bytes than were written. ``orphan``: nobody refers to it.
            ``signature``: no trusted key has signed it. ``mismatch``: two records contradict each other. ``forged``: a
            tag or record that claims what is not so. ``truncated``: a log that has lost its newest entries.
        place: ``remote``: DVC's. ``store``: the object store. ``git``: the repository.
        object: Its name in that place: the MD5 in the remote, the key in the store, the ref in git.
        where: Address of the place.
        what: What it is, in words.
        problem: What is wrong with it.
        remedy: What to do about it.
        versions: The registered versions that need it, such as ``movielens@v3``.
        severity: ``damage``; or ``note``: worth knowing, and no version is worse for it.
    """

    kind: Kind
    place: Place
    object: str
    where: str
    what: str
    problem: str
    remedy: str = ""
    versions: tuple[str, ...] = ()
    severity: Severity = "damage"

    def __str__(self) -> str:
        of = f" [{shown_versions(self.versions)}]" if self.versions else ""
        return f"{self.kind}: {self.what}{of}: {self.problem} ({self.place} {self.object})"

    @property
    def record(self) -> dict[str, Any]:
        """The finding for JSON."""
        return {**asdict(self), "versions": list(self.versions)}


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Damage before notes, then by place and name: the same findings always come in the same order. Each once."""
    return sorted(
        dict.fromkeys(findings),
        key=lambda one: (one.severity, one.place, one.object, one.kind, one.what, one.problem),
    )


def damages(findings: Iterable[Finding]) -> list[Finding]:
    """Those that are more than a note."""
    return [one for one in findings if one.severity == "damage"]


def shown_versions(versions: Iterable[str]) -> str:
    """The first few of many versions."""
    listed = list(versions)
    more = f" and {len(listed) - _SHOWN_VERSIONS} more" if len(listed) > _SHOWN_VERSIONS else ""
    return ", ".join(listed[:_SHOWN_VERSIONS]) + more
