"""Nightly: is every registered release still whole? Each byte in the store and in DVC's remote is read and hashed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Failed

from components.errors import RecstillError
from components.provenance.signing import trusted_keys
from components.serving.pointer import history
from components.serving.releases import names, read_release, verify_release, versions
from components.storage.contract import ObjectStore
from flows.artifacts import publish_page
from flows.dvc_remote import verify_pushed
from flows.registry import registered
from flows.repository import GitError, git, is_repository, keys_of, store_of
from flows.run_names import dated
from flows.trust import trusted


class Finding(NamedTuple):
    """What the audit has to say about one release.

    Attributes:
        name: The model.
        version: Its version.
        problems: What is missing, damaged or not signed; empty: all is well.
        note: What could not be looked at, and why; empty: everything was.
    """

    name: str
    version: int
    problems: tuple[str, ...]
    note: str = ""

    def __str__(self) -> str:
        if self.problems:
            return f"{self.name}@v{self.version}: {'; '.join(self.problems)}"
        return f"{self.name}@v{self.version}: whole{f' ({self.note})' if self.note else ''}"


@flow(flow_run_name=dated("what"), persist_result=False)
def audit(what: str = "audit") -> int:
    """Read back and re-hash every release of the store of the checkout in which the run works.

    Args:
        what: Heads the name of the run.

    Returns:
        How many releases there are. The run fails when something is missing, damaged or not signed by a trusted key.
    """
    log = get_run_logger()
    try:
        findings = survey(Path.cwd(), lambda one: (log.error if one.problems else log.info)("%s", one))
    except RecstillError as error:  # what a user can mend needs no traceback
        return Failed(message=str(error))  # type: ignore[return-value]  # Prefect takes a state for a result
    publish_page("audit", what, _page(findings))
    bad = [str(finding) for finding in findings if finding.problems]
    if bad:
        message = f"{len(bad)} of {len(findings)} releases are not whole:\n" + "\n".join(f"  {line}" for line in bad)
        return Failed(message=f"{message}\nPut the bytes back from a copy; until then do not deploy these.")  # type: ignore[return-value]
    return len(findings)


def survey(root: Path, say: Callable[[Finding], None] = lambda _: None) -> list[Finding]:
    """Look at every release in the store of a checkout.

    Args:
        root: The checkout; its repository is where the commits of the releases are looked for.
        say: Is told each finding as it is made.

    Raises:
        StorageError: The store cannot be read.
        SettingsError: There is no key to trust.
    """
    store = store_of(root)
    found: list[Finding] = []
    for name in names(store):
        # What was made live or tagged and has no release any more is missing, not unknown.
        expected = {*versions(store, name), *(one.version for one in history(store, name, trusted(root)))}
        if is_repository(root):
            expected |= set(registered(root, name))
        for version in sorted(expected):
            found.append(_looked_at(root, store, name, version))
            say(found[-1])
    return found


def _looked_at(root: Path, store: ObjectStore, name: str, version: int) -> Finding:
    try:
        release = read_release(store, name, version, trusted_keys(keys_of(root)))
    except RecstillError as error:
        return Finding(name, version, (error.message,))
    problems = verify_release(store, release)
    try:
        git(root, "cat-file", "-e", f"{release.commit}^{{commit}}")
    except GitError:
        note = f"commit {release.commit[:12]} is not in this repository: its bytes in DVC's remote were not looked at"
        return Finding(name, version, tuple(problems), note)
    try:
        problems += verify_pushed(root, name, release.commit)
    except RecstillError as error:
        problems.append(error.message)
    return Finding(name, version, tuple(problems))


def _page(findings: list[Finding]) -> str:
    bad = sum(bool(finding.problems) for finding in findings)
    lines = [f"# Audit: {len(findings)} releases, {bad} not whole", "", "| release | state | |", "|---|---|---|"]
    for finding in findings:
        state = "**not whole**" if finding.problems else "whole"
        text = "; ".join([*finding.problems, finding.note]).strip("; ").replace("|", "\\|")
        lines.append(f"| {finding.name}@v{finding.version} | {state} | {text} |")
    return "\n".join(lines) + "\n"
