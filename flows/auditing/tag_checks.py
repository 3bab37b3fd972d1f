"""Tags against attestations: what registers a version in git has to say what the signed release says."""

from __future__ import annotations

import re

from components.serving.pointer import switch_log
from components.serving.releases import attestation_key
from flows.auditing.audited import Audited
from flows.auditing.registered import Version
from flows.auditing.standing_still import is_retrained
from flows.auditing.witness import anchors
from flows.registry import STAGE, registered, version_tag
from flows.repository import main_checkout

_STAGED = re.compile(rf"([A-Za-z0-9_-]+)#{STAGE}#([1-9]\d*)")


def check_tags(audit: Audited) -> None:
    """Tell tags that are missing, of another commit, of another attestation, or of a form that GTO does not make."""
    tagged = {version.name for version in audit.versions if version.tag is not None}
    for version in audit.chosen:
        if version.release is not None:
            _check(audit, version, mine=version.name in tagged or version.here)
    for name in audit.names:
        _check_stages(audit, name)


def _check_stages(audit: Audited, name: str) -> None:
    """Tell stage tags that show another version than the switch that they name, or name none."""
    found = ((_STAGED.fullmatch(tag.name), tag) for tag in audit.tags.values())
    staged = sorted((int(match[2]), tag) for match, tag in found if match and match[1] == name)
    if not staged:
        return
    entries, _ = switch_log(audit.store, name).examined(audit.keys)
    switched = {entry.number: entry.body.get("version") for entry in entries}
    commits = {one.number: one.release.commit for one in audit.versions if one.name == name and one.release is not None}
    named = {anchor.tag: anchor.number for anchor in anchors(audit.root, name)}
    for number, tag in staged:
        version = switched.get(named.get(tag.name, 0))
        ref, what = f"refs/tags/{tag.name}", f"the tag {tag.name}"
        again = f"`git tag -d {tag.name}`; the log of switches says what is live, and the next one is tagged again."
        if tag.name not in named:
            # Those from before switches were signed name none either: what git shows as live is what counts.
            newest = number == staged[-1][0] and tag.annotated
            text = "it names no switch: no deployment made it"
            audit.in_git("forged", ref, what, text, again, severity="damage" if newest else "note")
        elif isinstance(version, int) and commits.get(version, tag.commit) != tag.commit:
            text = (
                f"it is of commit {tag.commit[:12]}, and the switch that it names made {name}@v{version} live, of "
                f"{commits[version][:12]}"
            )
            audit.in_git("forged", ref, what, text, again, versions=[f"{name}@v{version}"])


def _check(audit: Audited, version: Version, *, mine: bool) -> None:
    release, tag = version.release, version.tag
    assert release is not None
    name = version_tag(version.name, version.number)
    ref, what, of = f"refs/tags/{name}", f"the tag {name}", [str(version)]
    again = f"`git tag -d {name}`, then `recstill verify --repair` makes it as the signed release says."
    switched = version.attestations - {release.attestation}
    if switched:
        text = f"it is not the one that was made live: that one has sha256:{min(switched)[:12]}"
        audit.in_store("mismatch", attestation_key(version.name, version.number), f"the attestation of {version}", text,
                       "Somebody has put another one in its place. Put it back from a copy.", versions=of)  # fmt: skip
    if tag is None:
        # It may have been made since the tags were read, or be about to be.
        if registered(audit.root, version.name).get(version.number) == release.commit:
            return
        mine = mine and not is_retrained(main_checkout(audit.root), version.name)
        text = f"{version} is attested and has no tag: its registration has stopped halfway, or the tag was deleted"
        remedy = "`git fetch --tags`, or `recstill verify --repair`, or retrain again: that completes a registration."
        audit.in_git("missing", ref, what, text, remedy, versions=of, severity="damage" if mine else "note")
        return
    if not tag.annotated:
        audit.in_git("forged", ref, what, "it has no message: no registration made it", again, versions=of)
        return
    if tag.commit != release.commit:
        text = f"it is of commit {tag.commit[:12]}, and the signed release is of {release.commit[:12]}"
        audit.in_git("forged", ref, what, text, again, versions=of)
    if tag.attestation != release.attestation:
        named = f"sha256:{tag.attestation[:12]}" if tag.attestation else "none"
        text = (
            f"its message names the attestation {named}, and {version} has sha256:{release.attestation[:12]} "
            f"(releases/{version.name}/v{version.number}/attestation.dsse.json)"
        )
        audit.in_git("forged", ref, what, text, f"One of the two was replaced. {again}", versions=of)
