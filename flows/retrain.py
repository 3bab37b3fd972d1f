"""Scheduled retraining: new data, the graph in a worktree of its own, the gate, and a new version if it passes.

The flow reads as a story; what it tells of is done by :mod:`flows.resuming`, :mod:`flows.surveying`,
:mod:`flows.challenge` and :mod:`flows.finalizing`. The current folder has to be the checkout. Neither its files nor
what is live are touched: a version that the gate lets through is registered, and deploying it is another flow's affair.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prefect import flow
from prefect.states import Completed, Failed

from components.errors import RecstillError
from flows.compress import compress
from flows.console import Console
from flows.finalizing import FinishedRun, keep_lock
from flows.resuming import finish_earlier, line_of, newest_version, quality, registered
from flows.run_names import dated
from flows.runs import RunRecord, claim_run, write_run
from flows.steps import as_task
from flows.surveying import Request, Say, Survey, champion_and_latest, make_tree, survey
from flows.trust import signer, trusted
from flows.versions import show_versions
from flows.worktrees import scenario_lock, sort_lock, withdraw_source, working_in

if TYPE_CHECKING:
    from components.evaluation.drift import Drift
    from components.provenance.signing import SigningKey
    from components.tasks.contract import Dataset
    from flows.graph import Stage

_UNTRUSTED = "nobody could use what it makes"
Ending = Literal["registered", "nothing new", "refused"]


@dataclass(frozen=True)
class Outcome:
    """How a retraining ended.

    Attributes:
        scenario: Which.
        ended: ``registered``: there is a new version. ``nothing new``: nothing was trained, or nothing came of it that
            is not known already. ``refused``: the gate has stopped it; production stays as it is.
        message: One or more lines for people.
        key: Of the run.
        version: The new version, or the one that the same data have given before.
        verdict: Of the gate, when it was asked.
    """

    scenario: str
    ended: Ending
    message: str
    key: str
    version: int | None = None
    verdict: dict[str, Any] | None = None


@flow(name="retrain", flow_run_name=dated("scenario"), persist_result=False)
def retrain(scenario: str, as_of: str | None = None, warm: bool | None = None, force: bool = False) -> Outcome:
    """Take new data, run the graph on them, ask the gate, and register what passes.

    Args:
        scenario: A scenario of params.yaml.
        as_of: Events later than this are left out, ISO 8601; None: the last midnight (UTC) where params.yaml names an
            instant, else all events.
        warm: Start the teacher from the champion's; None: as ``retraining.warm_start`` says.
        force: Go on although nothing has moved, or the gate has refused the same before.
    """
    try:
        outcome = retrained(Path.cwd(), Request(scenario, as_of, warm, force), Console().say)
        show_versions(Path.cwd(), scenario)
    except RecstillError as error:  # what a user can mend needs no traceback
        return Failed(message=str(error))  # type: ignore[return-value]  # Prefect takes a state for a result
    return Completed(name=outcome.ended.capitalize(), message=outcome.message, data=outcome)  # type: ignore[return-value]


def retrained(checkout: Path, request: Request, say: Say) -> Outcome:
    """What the flow does; to be called within a flow.

    Raises:
        RecstillError: It cannot be done, or another retraining of the scenario is at work.
    """
    with scenario_lock(checkout, request.scenario):
        signer(checkout, _UNTRUSTED)  # now, and not when everything is trained
        earlier = finish_earlier(checkout, request.scenario, say)
        found = survey(checkout, request, run_stages, say)
        own = next((run for run in earlier if run.key == found.key), None)
        outcome = _made(found, own) if own else _gone_on(found, request, say)
        # What has just become a version belongs to the end of this run too, though it is of older data.
        lines = [line_of(run) for run in earlier if run is not own]
        return replace(outcome, message="\n  ".join([outcome.message, *lines]))


def _gone_on(found: Survey, request: Request, say: Say) -> Outcome:
    if outcome := known_outcome(found, request):
        return outcome
    record = found.record
    # Left by another machine, which alone has its lock. Against another champion it has to be asked again.
    if record is not None and record.status == "passed" and record.champion == found.champion_version:
        say(f"run {record.key[:12]} has passed the gate and was interrupted: it goes on from there")
        from flows.challenge import judged_package

        found = replace(found, tree=_again(found, record), commit=record.commit, changes=record.changes)
        if judged_package(found) == record.verdict.get("package"):
            return _registered(found, record, say)
        # Trained again elsewhere, another variant may ship: the verdict was about another package.
        say("its package is another one now: the gate is asked again")
    return _challenged(found, request, say)


def known_outcome(found: Survey, request: Request) -> Outcome | None:
    """The end of a run that was made before with the same data, parameters and code; None: there is something to do."""
    record = found.record
    if record is None or record.status in ("passed", "superseded"):
        return None
    same = f"nothing new: the same data, parameters and code (run {found.key[:12]})"
    if record.status == "registered":
        message = f"{same} are {found.name}@v{record.version}"
        return Outcome(found.name, "nothing new", message, found.key, record.version, record.verdict)
    # Against another champion the same challenger may pass.
    if request.force or record.champion != found.champion_version:
        return None
    message = "\n  ".join([f"{same} were refused by the gate; --force asks it again", *record.reasons])
    return Outcome(found.name, "nothing new", message, found.key, None, record.verdict)


def run_stages(tree: Path, scenario: str, stages: Sequence[Stage]) -> None:
    """Bring stages up to date as a flow within this one.

    Raises:
        RecstillError: One failed.
    """
    state = compress(str(tree), scenario, [stage.address for stage in stages], return_state=True)
    if not state.is_completed():
        raise RecstillError(state.message or f"the stages of {scenario} did not complete")


def _challenged(found: Survey, request: Request, say: Say) -> Outcome:
    from flows.artifacts import publish_results, publish_verdict
    from flows.challenge import has_moved, verdict_of

    champion, drift = _drifted(found, say)
    when_moved = found.settings.retraining.drift.retrain == "when_moved" and not request.force
    if drift is not None and when_moved and not has_moved(found, drift):
        return _unmoved(found, drift)
    if stop := _too_far(found, drift):
        return _refused(found, stop, say)
    report = _graph(found)
    now = against_what_is_live(found, say)
    if now.champion != found.champion:
        found = now
        champion, drift = _drifted(found, say)
        if stop := _too_far(found, drift):
            return _refused(found, stop, say)
    verdict = as_task("gate", lambda: verdict_of(found, champion, drift, report))
    if report != found.artifacts / "report":  # that one is published by whoever runs the stages
        publish_results(found.name, report)
    publish_verdict(found.name, verdict)
    if not verdict["passed"]:
        return _refused(found, verdict, say)
    say(f"the gate lets it through: {quality(verdict)}")
    _cleared(found)
    keep_lock(_finished(found, verdict), say)  # before the record: whoever finds that can finish the run
    record = claim_run(found.store, _record(found, "passed", verdict), trusted(found.checkout), _key(found))
    # Of another champion, or of another package.
    if record.status != "registered" and (record.status != "passed" or record.verdict != verdict):
        record = _record(found, "passed", verdict)
        write_run(found.store, record, _key(found))
    if record.status == "registered":  # another machine was faster
        return Outcome(
            found.name, "nothing new", f"{found.name}@v{record.version} has just been made elsewhere", found.key
        )
    return _registered(found, record, say)


def against_what_is_live(found: Survey, say: Say) -> Survey:
    """The same run against what is live now. Training takes its time, and a challenger that was judged against what is
    not live any more would be brought live by no event.

    Raises:
        RecstillError: What is live cannot be read.
    """
    now, _ = champion_and_latest(found.checkout, found.store, found.name)
    if now == found.champion:
        return found
    say(f"meanwhile {f'v{now.version}' if now else 'nothing'} is live: the gate compares with that")
    return replace(found, champion=now)


def _drifted(found: Survey, say: Say) -> tuple[Dataset | None, Drift | None]:
    """The champion's data, and how far those of the run have moved since; None where there are none."""
    from flows.challenge import champion_dataset, drift_of

    def measured() -> tuple[Dataset | None, Drift | None]:
        champion = champion_dataset(found)
        return champion, drift_of(found, champion)

    champion, drift = as_task("drift", measured)
    if champion is None and found.champion is not None:
        say(f"the data of v{found.champion_version} were erased: the gate compares with teacher and baselines instead")
    for line in drift.lines() if drift is not None else ():
        say(f"drift against v{found.champion_version}: {line}")
    return champion, drift


def _too_far(found: Survey, drift: Drift | None) -> dict[str, Any] | None:
    """The verdict on data that have moved further than ``drift.max_psi``; None when they have not."""
    from components.evaluation.challenger_gate import stopped
    from flows.artifacts import publish_verdict

    limit = found.settings.retraining.drift.max_psi
    if drift is None or limit is None or drift.psi <= limit or found.champion is None:
        return None
    stop = stopped(found.dataset, found.source, drift.record(), limit, found.champion.version)
    publish_verdict(found.name, stop)
    return stop


def _graph(found: Survey) -> Path:
    """Run what is left of the graph.

    Returns:
        The folder of the report: that of the variant that ships, or else that of the refusal of all.

    Raises:
        RecstillError: A stage failed, for another reason than that no variant may ship.
    """
    refused = found.tree / ".recstill" / "failed" / found.name / "report"
    shutil.rmtree(refused, ignore_errors=True)
    try:
        with working_in(found.checkout, found.tree):
            run_stages(found.tree, found.name, found.rest)
    except RecstillError:
        if (refused / "choice.json").is_file():
            return refused
        raise
    return found.artifacts / "report"


def _again(found: Survey, record: RunRecord) -> Path:
    """The worktree of an interrupted run as it was then, whatever day it is now: its stages come from the cache."""
    _, latest = champion_and_latest(found.checkout, found.store, found.name)
    tree = make_tree(
        found.checkout,
        found.name,
        record.commit,
        changes=record.changes,
        latest=latest,
        source=found.settings.source.path,
    )
    with working_in(found.checkout, tree):
        run_stages(tree, found.name, (*found.prepared, *found.rest))
    return tree


def _registered(found: Survey, record: RunRecord, say: Say) -> Outcome:
    _cleared(found)
    return _made(found, registered(_finished(found, record.verdict), record, found.store, say))


def _made(found: Survey, run: RunRecord) -> Outcome:
    return Outcome(found.name, "registered", line_of(run), run.key, run.version, run.verdict)


def _finished(found: Survey, verdict: dict[str, Any]) -> FinishedRun:
    return FinishedRun(found.checkout, found.tree, found.name, found.key, verdict)


def _cleared(found: Survey) -> None:
    """The worktree as it becomes a commit."""
    withdraw_source(found.checkout, found.tree, found.settings.source.path)
    sort_lock(found.tree)


def _refused(found: Survey, verdict: dict[str, Any], say: Say) -> Outcome:
    write_run(found.store, _record(found, "refused", verdict), _key(found))
    live = f"v{found.champion_version} stays live" if found.champion else "nothing is live, as before"
    message = "\n  ".join([f"refused: {found.name} is not registered, {live}", *verdict["reasons"]])
    return Outcome(found.name, "refused", message, found.key, None, verdict)


def _unmoved(found: Survey, drift: Drift) -> Outcome:
    limits = found.settings.retraining.drift
    message = (
        f"nothing new: the data have hardly moved since v{found.champion_version}: PSI {drift.psi:.3f} "
        f"(retrained above {limits.moved_psi:g}), {drift.new_items:.1%} new items (above "
        f"{limits.moved_new_item_share:.1%}); --force retrains all the same"
    )
    return Outcome(found.name, "nothing new", message, found.key)


def _key(found: Survey) -> SigningKey:
    return signer(found.checkout, _UNTRUSTED)


def _record(found: Survey, status: Literal["passed", "refused"], verdict: dict[str, Any]) -> RunRecord:
    return RunRecord(
        name=found.name,
        key=found.key,
        status=status,
        dataset=str(found.dataset["digest"]),
        commit=found.commit,
        changes=found.changes,
        champion=found.champion_version,
        verdict=verdict,
        newest=newest_version(found.store, found.name),
    )
