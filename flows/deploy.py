"""Deployment by trigger or after approval: a version is checked, tried and switched to, each step seen in Prefect."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect import flow, get_run_logger
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from pydantic import Field

from components.errors import RecstillError
from flows.console import Console
from flows.promoting import Approval, Order, bring_live
from flows.repository import enter_checkout
from flows.steps import as_task
from flows.switching import DeploymentError
from flows.trial_run import planned
from flows.versions import show_versions

if TYPE_CHECKING:
    from components.serving.releases import Release
    from flows.checking import Checked

_APPROVAL_SECONDS = 86_400


class ApprovalForm(RunInput):
    """What a person fills in before a version goes live."""

    approve: bool = Field(default=False, description="Shall it go live?")
    who: str = Field(min_length=1, pattern=r"\S", description="Who decides; it is recorded with the switch.")
    why: str = Field(default="", description="The reason; it is recorded with the switch.")


def _run_name() -> str:
    parameters = flow_run.get_parameters()
    version = parameters.get("version")
    shown = parameters.get("name", "") + (f"@v{version}" if version is not None else "")
    return f"deploy {shown} {datetime.now(UTC):%Y-%m-%d %H:%M}"


@flow(name="deploy", flow_run_name=_run_name, persist_result=False)
def deploy(
    name: str,
    version: int | None = None,
    attestation: str | None = None,
    *,
    approval: bool = False,
    mode: str | None = None,
    share: float = 0.1,
    seconds: float = 0,
    service: str | None = None,
    who: str | None = None,
    why: str = "",
) -> dict[str, Any]:
    """Bring a registered version live.

    Args:
        name: Of the model: the scenario's.
        version: Its number; None: the newest that is registered.
        attestation: SHA-256 that its attestation must have, as the event brings it. With it, a version that was live
            once or is older than what is live is left alone.
        approval: Pause, once everything is checked, until a person has filled in the form.
        mode: ``canary`` or ``shadow``: try it first in a running service.
        share: Of the requests that it is tried with.
        seconds: How long.
        service: The service's address.
        who: Who deploys; None: git's user, or the account.
        why: The reason.

    Returns:
        Name, version, whether it was switched to, and what happened in a sentence.
    """
    log = get_run_logger()
    # Where nobody reads the log, on a terminal, the lines are printed.
    say: Callable[[str], None] = log.info if log.isEnabledFor(logging.INFO) else Console().say
    try:
        order = Order(name, version, attestation, planned(mode, share, seconds, service), who or "", why)
        root = enter_checkout()
        done = bring_live(root, order, say, step=as_task, ask=_asked if approval else None)
        show_versions(root, name)
    except RecstillError as error:
        return Failed(message=str(error))  # type: ignore[return-value]  # Prefect takes a state for a result
    record = {"name": done.name, "version": done.version, "switched": done.switched, "text": done.text}
    return Completed(message=done.text, data=record)  # type: ignore[return-value]


def _asked(release: Release, checked: Checked) -> Approval:
    """Pause the flow until a person has decided."""
    gate = release.gate.get("passed")
    text = (
        f"**{release.name}@v{release.version}** of commit `{release.commit[:12]}`, run of {release.created}. "
        f"Gate: {'passed' if gate else 'not passed'}. Signature, {checked.files} digests and {checked.golden} golden "
        f"requests are right; p95 at batch 1 is {checked.p95_ms:.3f} ms. Shall it go live?"
    )
    form = ApprovalForm.with_initial_data(description=text)
    try:
        filled = pause_flow_run(wait_for_input=form, timeout=_APPROVAL_SECONDS)
    except FlowPauseTimeout:
        raise DeploymentError(
            f"nobody has decided on {release.name}@v{release.version} within a day", "Deploy again."
        ) from None
    return Approval(filled.approve, filled.who, filled.why)
