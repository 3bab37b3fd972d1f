"""Nightly: is every registered version whole? Every byte is read and hashed, every signature and record checked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import flow
from prefect.logging import get_run_logger
from prefect.states import Failed

from components.errors import RecstillError
from flows.artifacts import publish_page
from flows.auditing.reporting import audit_report
from flows.run_names import dated

if TYPE_CHECKING:
    from flows.auditing.reporting import Report

_SHOWN = 20


@flow(flow_run_name=dated("what"), persist_result=False)
def audit(what: str = "audit") -> int:
    """Verify every registered version of the checkout in which the run works, in the store and in DVC's remote.

    Args:
        what: Heads the name of the run.

    Returns:
        How many versions there are. The run fails when something is missing, damaged, forged or not signed by a trusted
        key, and when what is live is recalled.
    """
    log = get_run_logger()
    try:
        report = audit_report(Path.cwd())
    except RecstillError as error:  # what a user can mend needs no traceback
        return Failed(message=str(error))  # type: ignore[return-value]  # Prefect takes a state for a result
    for finding in report.verified.findings:
        (log.error if finding.severity == "damage" else log.info)("%s", finding)
    for version in report.versions:
        log.info("%s: %s, %s", version, version.state, "whole" if version.whole else "not whole")
    publish_page("audit", what, page(report))
    bad = [str(one) for one in report.verified.damaged]
    bad += [f"{one} is live and recalled: {one.recalls[0]}" for one in report.recalled_live]
    if bad:
        more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        message = f"{len(bad)} findings:\n" + "\n".join(f"  {line}" for line in [*bad[:_SHOWN], *more])
        remedy = "`recstill verify --repair` puts back what there is a copy of; until then do not deploy these."
        return Failed(message=f"{message}\n{remedy}")  # type: ignore[return-value]
    return len(report.versions)


def page(report: Report) -> str:
    """The report as Markdown, for Prefect's page of the run."""
    bad = [one for one in report.versions if not one.whole]
    lines = [f"# Audit: {len(report.versions)} versions, {len(bad)} not whole", ""]
    for finding in report.verified.findings:
        lines.append(f"- {'**damage**' if finding.severity == 'damage' else 'note'}: {_plain(str(finding))}")
    lines += ["", "| version | | state | |", "|---|---|---|---|"]
    for one in report.versions:
        state = "whole" if one.whole else "**not whole**"
        said = [f"**recalled**: {text}" for text in one.recalls] + [finding.problem for finding in one.findings]
        lines.append(f"| {one} | {state} | {one.state} | {_plain('; '.join(said))} |")
    size = f"{report.verified.bytes:,} bytes of {report.verified.objects:,} objects read"
    return "\n".join([*lines, "", f"{size} in {report.verified.seconds:.0f} s, {report.store}", ""])


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
