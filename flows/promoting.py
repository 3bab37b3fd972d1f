"""Bringing a registered version live, in one order for people and for triggers: check, approve, try, switch, tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from components.errors import IntegrityError
from components.storage.contract import ObjectStore
from flows.auditing.recalled import require_not_recalled
from flows.checking import Checked, check_release
from flows.repository import GitError, identity, is_repository, push_remote, store_of
from flows.switching import DeploymentError, Say, live_switch, mark_stage, release_of, switch_to, tell_switch
from flows.trial_run import TrialPlan, try_out
from flows.trust import signer, trusted

if TYPE_CHECKING:
    from components.serving.pointer import Switch
    from components.serving.releases import Release

Result = TypeVar("Result")
Step = Callable[[str, Callable[[], Any]], Any]
"""Runs one step under a name; a flow makes a task of it."""


class Approval(NamedTuple):
    """A person's word: whether, who, and why."""

    approve: bool
    who: str
    why: str


@dataclass(frozen=True)
class Order:
    """What is to be deployed, and how.

    Attributes:
        name: Of the model.
        version: Its number; None: the newest that is registered.
        attestation: SHA-256 that the attestation must have; what an event brings along. With it, a version that was
            live once, or is older than what is live, is left alone: events may come late or twice.
        trial: How it is tried first; None: not at all.
        who: Who deploys.
        why: The reason.
    """

    name: str
    version: int | None = None
    attestation: str | None = None
    trial: TrialPlan | None = None
    who: str = ""
    why: str = ""


class Deployed(NamedTuple):
    """How a deployment ended.

    Attributes:
        name: Of the model.
        version: Its number.
        switched: Whether this deployment brought it live; False: there was nothing to do.
        text: What happened, in a sentence.
        checked: What was found of it.
        trial: Figures of its trial.
    """

    name: str
    version: int
    switched: bool
    text: str
    checked: Checked | None = None
    trial: dict[str, Any] | None = None


def at_once(_title: str, work: Callable[[], Result]) -> Result:
    """A step that is simply done."""
    return work()


def bring_live(
    root: Path,
    order: Order,
    say: Say,
    *,
    step: Step = at_once,
    ask: Callable[[Release, Checked], Approval] | None = None,
) -> Deployed:
    """Deploy a version. Until the switch nothing is changed; the switch is one conditional write.

    Args:
        root: The checkout.
        order: What, and how.
        say: Takes lines for whoever watches.
        step: Runs each step.
        ask: Asks a person before anything changes; None: nobody is asked.

    Raises:
        RecstillError: It is recalled, does not verify, is too slow, fails its trial, is not approved, or another was
            faster.
    """
    store = store_of(root)
    # Read before anything is checked: a switch in between is a conflict, and shows in the end.
    seen = live_switch(root, store, order.name)
    release: Release = step("verify the signature", lambda: _resolved(root, store, order))
    require_not_recalled(root, store, release, seen)
    if reason := _nothing_to_do(root, store, order, release, seen):
        say(reason)
        mark_stage(root, store, order.name, say)
        return Deployed(release.name, release.version, switched=False, text=reason)
    signer(root, "no service would heed the switch")  # found out before minutes are spent on checks
    checked: Checked = step("check bytes, answers and speed", lambda: check_release(store, release, say))
    who, why = order.who or identity(root).name, order.why
    if ask is not None:
        word = ask(release, checked)
        who, why = word.who or who, word.why
        if not word.approve:
            raise DeploymentError(
                f"{who} does not approve of {release.name}@v{release.version}: {why or 'no reason given'}"
            )
        say(f"approved by {who}: {why or 'no reason given'}")
    trial = order.trial
    figures = (
        step(f"{trial.mode} on trial", lambda: try_out(root, store, release, trial, say)) if trial is not None else None
    )

    def switched() -> Switch:
        return switch_to(root, store, release, expected=seen.number if seen else 0, kind="deploy", who=who, why=why)

    live: Switch = step("switch", switched)
    text = f"{live.name}@v{live.version} is live (switch {live.number}), before it {_version(live.previous)}"
    say(text)
    tell_switch(store, live, say)
    step("tag", lambda: mark_stage(root, store, order.name, say))
    return Deployed(release.name, release.version, switched=True, text=text, checked=checked, trial=figures)


def _resolved(root: Path, store: ObjectStore, order: Order) -> Release:
    version = order.version if order.version is not None else newest(root, store, order.name)
    release = release_of(root, store, order.name, version)
    if order.attestation is not None and release.attestation != order.attestation:
        raise IntegrityError(
            f"{order.name}@v{version} has the attestation {release.attestation[:12]}, "
            f"and {order.attestation[:12]} was announced",
            "Somebody has replaced one of them: find out who before you deploy it by hand.",
        )
    return release


def newest(root: Path, store: ObjectStore, name: str) -> int:
    """The newest version that is registered: released in the store and, inside a repository, tagged.

    Raises:
        DeploymentError: There is none.
    """
    from components.serving.releases import names, versions
    from components.settings.base import nearest

    released = versions(store, name)
    if not released:
        raise DeploymentError(f"no version of {name!r} is registered; {nearest(name, names(store))}")
    if not is_repository(root):
        return max(released)
    from flows.registry import fetch_tags, registered

    tagged = registered(root, name)
    if push_remote(root) and max(released) not in tagged:
        try:
            fetch_tags(root, name)
        except GitError as error:
            raise DeploymentError(
                f"which version of {name} is the newest is not known: {error.message}", f"Name one: {name}@vN."
            ) from None
        tagged = registered(root, name)
    both = [version for version in released if version in tagged]
    if not both:
        raise DeploymentError(
            f"no version of {name!r} has a tag in this repository; in the store there is v{max(released)}",
            f"Name it: `recstill deploy {name}@v{max(released)}`, or run the retraining again, which finishes it.",
        )
    return max(both)


def _nothing_to_do(root: Path, store: ObjectStore, order: Order, release: Release, seen: Switch | None) -> str:
    from components.serving.pointer import history

    shown = f"{release.name}@v{release.version}"
    if seen is not None and (seen.version, seen.attestation) == (release.version, release.attestation):
        return f"{shown} is live already"
    if order.attestation is None or seen is None:
        return ""
    if any(one.version == release.version for one in history(store, release.name, trusted(root))):
        return f"{shown} was live before v{seen.version}: an event does not bring it back, only a person does"
    if seen.version > release.version:
        return f"{shown} is older than v{seen.version}, which is live: an event does not bring it back"
    judged = (release.gate.get("champion") or {}).get("version")
    if judged != seen.version:
        return (
            f"{shown} was judged against {_version(judged)}, and v{seen.version} is live: an event does not bring it "
            "live, only a person does"
        )
    return ""


def _version(number: int | None) -> str:
    return "nothing" if number is None else f"v{number}"
