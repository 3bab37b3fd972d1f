"""May the challenger take the champion's place? The verdict with its numbers, as a record.

Non-inferiority: the challenger may be worse than the champion by a margin at most, and that must be sure: the lower
end of the 95 % interval of the difference counts, by a paired bootstrap over users. There is no clock in a verdict: the
same models and data give the same bytes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from components.evaluation.comparison import paired_bootstrap
from components.evaluation.selection import Requirement, verdict
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.settings.retraining import ChallengerGateSettings

FORMAT = 1
_DIGITS = 6
_FP32_BYTES = 4
_SHOWN = 3
_LEAST_USERS = 30


class Check(NamedTuple):
    """One condition, and how the challenger stands to it.

    Attributes:
        name: Such as ``quality`` or ``budget.max_bytes_ratio``.
        passed: Is it met?
        limit: What is asked for; None where it is only reported.
        actual: What was measured; None where it could not be.
        text: Both in words.
    """

    name: str
    passed: bool
    limit: float | None
    actual: float | None
    text: str


class Contest(NamedTuple):
    """Both models on the same targets.

    Attributes:
        users: ``(T,)`` int64, the user of each target.
        challenger: ``(T,)`` float64, the primary measure of each target.
        champion: ``(T,)`` float64, the same.
        challenger_cold: Targets that the challenger has never learned from.
        champion_cold: Targets that the champion has never learned from.
        dropped: Test events that the champion had learned from, and that are no targets.
        span: Times of the oldest and the newest target, ISO 8601; None without targets.
        version: Of the champion.
    """

    users: np.ndarray
    challenger: np.ndarray
    champion: np.ndarray
    challenger_cold: int
    champion_cold: int
    dropped: int
    span: tuple[str, str] | None
    version: int


class Evidence(NamedTuple):
    """What the stages have recorded of the challenger.

    Attributes:
        dataset: ``dataset.json``.
        source: ``source.json``.
        metrics: ``metrics.json`` of the report.
        choice: ``choice.json``; its ``chosen`` is None when nothing may ship.
        budget, gate: The scenario's settings that chose it.
    """

    dataset: Mapping[str, Any]
    source: Mapping[str, Any]
    metrics: Mapping[str, Any]
    choice: Mapping[str, Any]
    budget: BudgetSettings
    gate: GateSettings


def judge(
    evidence: Evidence,
    contest: Contest | None,
    settings: ChallengerGateSettings,
    evaluation: EvaluationSettings,
    *,
    champion: int | None,
    drift: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The verdict on a challenger.

    Args:
        evidence: What the stages recorded.
        contest: Both models on the same targets; None: there is no champion yet, so that the challenger is held against
            its teacher and the baselines alone, or nothing that could be compared.
        settings: Margins and limits.
        evaluation: Of the bootstrap.
        champion: Version that is live; None: there is none.
        drift: Record of the drift against the champion's data.
    """
    checks = [*_budget_checks(evidence), *_data_checks(evidence, contest, settings)]
    measure = evidence.metrics["measures"][0]
    key = str(measure["key"])
    figures: dict[str, Any] = {"measure": {"key": key, "title": measure["title"]}}
    if contest is None:
        checks += _first_checks(evidence) if champion is None else []
        figures["champion"] = None if champion is None else {"version": champion}
        targets, cold = int(evidence.metrics["test_targets"]), _cold_targets(evidence.dataset)
        shipped = evidence.choice.get("figures") or {}
        figures["challenger"] = {key: shipped.get(key), "targets": targets, "cold_targets": cold}
        figures["holdout"] = {
            "targets": targets,
            "users": int(evidence.metrics["test_users"]),
            "dropped_trained": 0,
            "from": None,
            "to": None,
        }
        checks.append(_targets_check(targets, settings))
    else:
        found, own = _contest(contest, settings, evaluation, measure)
        figures |= found
        checks += own
    return _verdict(
        "first" if champion is None else "champion", checks, evidence.dataset, evidence.source, drift, **figures
    )


def stopped(
    dataset: Mapping[str, Any], source: Mapping[str, Any], drift: Mapping[str, Any], limit: float, version: int
) -> dict[str, Any]:
    """The verdict on data that have moved further than ``drift.max_psi`` allows: nothing was trained.

    Args:
        dataset: ``dataset.json``.
        source: ``source.json``.
        drift: Record of the drift.
        limit: ``drift.max_psi``.
        version: Of the champion.
    """
    check = _limit("drift.max_psi", drift["psi"], limit, "population stability index against the champion's data")
    return _verdict("champion", [check], dataset, source, drift, champion={"version": version})


def _verdict(
    kind: str,
    checks: Sequence[Check],
    dataset: Mapping[str, Any],
    source: Mapping[str, Any],
    drift: Mapping[str, Any] | None,
    **figures: Any,
) -> dict[str, Any]:
    missed = [check for check in checks if not check.passed]
    return {
        "format": FORMAT,
        "passed": not missed,
        "kind": kind,
        "reasons": [f"{check.name}: {check.text}" for check in missed],
        "checks": [check._asdict() for check in checks],
        "challenger": None,
        "champion": None,
        "difference": None,
        "holdout": None,
        "data": {
            "events": int(dataset["events"]),
            "users": int(dataset["users"]),
            "items": int(dataset["items"]),
            "rows": int(source["rows"]),
            "rejected_share": _round(_rejected_share(source)),
            "cold_item_share": _round(_cold_share(dataset)),
            "first_event": source["first_event"],
            "last_event": source["last_event"],
        },
        "drift": None if drift is None else dict(drift),
        "dataset": str(dataset["digest"]),
        **figures,
    }


def _contest(
    contest: Contest,
    settings: ChallengerGateSettings,
    evaluation: EvaluationSettings,
    measure: Mapping[str, Any],
) -> tuple[dict[str, Any], list[Check]]:
    targets, key = len(contest.users), str(measure["key"])
    figures: dict[str, Any] = {
        "challenger": _side(key, contest.challenger, contest.challenger_cold),
        "champion": {"version": contest.version, **_side(key, contest.champion, contest.champion_cold)},
        "holdout": {
            "targets": targets,
            "users": len(np.unique(contest.users)),
            "dropped_trained": contest.dropped,
            "from": contest.span[0] if contest.span else None,
            "to": contest.span[1] if contest.span else None,
        },
    }
    checks = [_targets_check(targets, settings)]
    if not targets:
        return figures, checks
    # The bootstrap draws users: of one alone, every draw is the same, and the interval tells nothing.
    users = int(figures["holdout"]["users"])
    checks.append(_floor("holdout.users", users, min(_LEAST_USERS, settings.min_targets), "users with targets"))
    difference = paired_bootstrap(
        {"challenger": contest.challenger},
        contest.champion,
        contest.users,
        samples=evaluation.bootstrap_samples,
        seed=evaluation.bootstrap_seed,
    )["challenger"].difference
    figures["difference"] = {name: _round(value) for name, value in difference._asdict().items()}
    reference = float(contest.champion.mean())
    limit = -settings.margin * reference
    # Two models that nobody can tell apart are no worse, even where both know nothing.
    passed = difference.low > limit or difference == (0.0, 0.0, 0.0)
    checks.append(
        Check(
            "quality",
            passed,
            _round(limit),
            _round(difference.low),
            f"{measure['title']} {contest.challenger.mean():.4f} against {reference:.4f} of v{contest.version} "
            f"on {targets:,} targets: {difference.estimate:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}], "
            f"and the lower end {'is' if passed else 'has to be'} above {limit:+.4f} "
            f"({settings.margin:.1%} of the champion's)",
        )
    )
    return figures, checks


def _side(key: str, values: np.ndarray, cold: int) -> dict[str, Any]:
    return {key: _round(float(values.mean())) if len(values) else None, "targets": len(values), "cold_targets": cold}


def _targets_check(targets: int, settings: ChallengerGateSettings) -> Check:
    return _floor("holdout.min_targets", targets, settings.min_targets, "targets that neither model has learned from")


def _budget_checks(evidence: Evidence) -> list[Check]:
    """Every limit that `evaluate` has held the shipped variant against, with its numbers."""
    contenders, chosen = evidence.metrics["contenders"], evidence.choice["chosen"]
    if chosen is None:
        return [Check("budget", False, None, None, _missed(evidence.choice))]
    reference = contenders.get("teacher_member") or contenders["teacher"]
    held = verdict(
        chosen,
        evidence.choice["figures"],
        contenders,
        reference["parameters"] * _FP32_BYTES,
        primary=evidence.metrics["measures"][0]["key"],
        budget=evidence.budget,
        gate=evidence.gate,
    )
    return [_required(requirement) for requirement in held.requirements]


def _missed(choice: Mapping[str, Any]) -> str:
    """What the variants miss that come nearest."""
    missed = {
        name: [f"{key} {text}" for key, text in held.items() if key != "met" and "(by " in text]
        for name, held in choice.get("verdicts", {}).items()
    }
    nearest = sorted(missed, key=lambda name: (len(missed[name]), name))[:_SHOWN]
    return "; ".join([str(choice["reason"]), *(f"{name}: {', '.join(missed[name])}" for name in nearest)])


def _required(requirement: Requirement) -> Check:
    return Check(
        requirement.setting, requirement.met, _round(requirement.limit), _round(requirement.actual), str(requirement)
    )


def _first_checks(evidence: Evidence) -> list[Check]:
    """Learning must have paid: what ships is better than counting. How near the teacher, `gate` says."""
    if evidence.choice["chosen"] is None:
        return []
    key, title = (evidence.metrics["measures"][0][part] for part in ("key", "title"))
    shipped = evidence.choice["figures"][key]
    checks = []
    for number, name in enumerate(evidence.metrics["untrained"]):
        counted = evidence.metrics["contenders"][name][key]
        # A stronger one may win where a catalogue is small; it is shown, and no reason to refuse.
        passed = shipped > counted or number > 0
        text = f"{title} {shipped:.4f} against {counted:.4f} of {name}"
        checks.append(Check(f"quality.{name}", passed, _round(counted), _round(shipped), text))
    return checks


def _data_checks(evidence: Evidence, contest: Contest | None, settings: ChallengerGateSettings) -> list[Check]:
    checks = []
    if settings.min_events is not None:
        checks.append(_floor("data.min_events", int(evidence.dataset["events"]), settings.min_events, "events"))
    rejected, cold = _rejected_share(evidence.source), _cold_share(evidence.dataset)
    if contest is not None and len(contest.users):  # the events that decide, not those that were left out
        cold = contest.challenger_cold / len(contest.users)
    if settings.max_rejected_share is not None:
        checks.append(
            _limit("data.max_rejected_share", rejected, settings.max_rejected_share, "share of rejected rows")
        )
    checks.append(
        _limit(
            "data.max_cold_item_share", cold, settings.max_cold_item_share, "share of test events of untrained items"
        )
    )
    return checks


def _limit(name: str, actual: float, limit: float, what: str) -> Check:
    passed = actual <= limit
    text = f"{what} {actual:.4g}, {'allowed' if passed else 'at most'} {limit:.4g}"
    return Check(name, passed, _round(limit), _round(actual), text)


def _floor(name: str, actual: int, limit: int, what: str) -> Check:
    return Check(name, actual >= limit, limit, actual, f"{actual:,} {what}, at least {limit:,}")


def _rejected_share(source: Mapping[str, Any]) -> float:
    return sum(source["rejected"].values()) / max(int(source["rows"]), 1)


def _cold_share(dataset: Mapping[str, Any]) -> float:
    return _cold_targets(dataset) / max(int(dataset["events_per_split"]["test"]), 1)


def _cold_targets(dataset: Mapping[str, Any]) -> int:
    """Test targets that training has never shown; 0 where a task has no such thing."""
    return int(dataset.get("cold_targets", {}).get("test", 0))


def _round(value: float) -> float | None:
    return round(float(value), _DIGITS) if math.isfinite(value) else None
