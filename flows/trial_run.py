"""A candidate at work in a running service, for a set time, before it may go live."""

from __future__ import annotations

import http.client
import json
import os
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from components.errors import DataError, IntegrityError, RecstillError
from components.storage.contract import ObjectStore
from flows.repository import without_credentials
from flows.trust import signer, trusted

if TYPE_CHECKING:
    from components.serving.candidate import Candidate
    from components.serving.releases import Release

Mode = Literal["canary", "shadow"]
KEY_VARIABLE = "RECSTILL_API_KEY"
_TAKE_UP_SECONDS = 30.0
_POLL_SECONDS = 0.5
_ANSWER_SECONDS = 5.0


class TrialError(RecstillError):
    """A candidate did not stand its trial; what is live stays live."""


class TrialPlan(NamedTuple):
    """How a candidate is tried.

    Attributes:
        mode: ``canary``: it answers a share of the requests. ``shadow``: it is asked too, and nobody sees its answers.
        share: Of the requests, above 0 and at most 1.
        seconds: How long, from when the service has taken it up.
        service: The service's address, such as ``http://127.0.0.1:8000``.
    """

    mode: Mode
    share: float
    seconds: float
    service: str


def planned(mode: str | None, share: float, seconds: float, service: str | None) -> TrialPlan | None:
    """The plan of these settings; None when no trial is asked for.

    Raises:
        DataError: They do not go together.
    """
    if mode is None:
        return None
    if mode not in ("canary", "shadow"):
        raise DataError(f"{mode!r} is no kind of trial", "canary or shadow")
    if not service:
        raise DataError(f"a {mode} needs a running service", "Give its address: --service http://127.0.0.1:8000")
    if not service.startswith(("http://", "https://")):
        raise DataError(f"--service {without_credentials(service)!r} is no address", "http://host:port")
    if not 0 < share <= 1:
        raise DataError(f"a share of {share} of the requests cannot be", "Give more than 0, and at most 1.")
    if not 0 < seconds <= 86_400:
        raise DataError(f"a {mode} of {seconds:g} s cannot be", "Give --for more than 0 s, and at most a day.")
    return TrialPlan("canary" if mode == "canary" else "shadow", share, seconds, service.rstrip("/"))


def try_out(
    root: Path, store: ObjectStore, release: Release, plan: TrialPlan, say: Callable[[str], None]
) -> dict[str, Any]:
    """Have a running service try a release. The candidate is withdrawn whatever happens.

    Returns:
        The service's last figures: requests, errors, p95_ms, overlap; of several, those of the one that was asked most.

    Raises:
        TrialError: It was refused, failed a request, got none, or the service did not take it up or went away.
        StorageError: The store cannot be written.
    """
    from components.serving.candidate import Candidate, propose, withdraw

    name, key = release.name, signer(root, "no service would heed the candidate")
    other = _on_trial(root, store, name)
    # Its end is by the clock of whoever proposed it, which may jump: nobody's trial lasts longer than a day.
    if other is not None and time.time() < other.until <= time.time() + 86_400 + _TAKE_UP_SECONDS:
        raise TrialError(f"{name}@v{other.version} is on trial now", "Wait for its end, then deploy again.")
    number = uuid.uuid4().hex
    until = time.time() + plan.seconds + _TAKE_UP_SECONDS
    propose(store, Candidate(name, release.version, release.attestation, plan.mode, plan.share, until, number), key)
    try:
        say(f"{name}@v{release.version} is on trial: {plan.mode}, {plan.share:.0%} of the requests, {plan.seconds:g} s")
        figures = _watched(release, plan, number)
    finally:
        left = _on_trial(root, store, name)
        if left is not None and left.number == number:
            withdraw(store, name)
    say(
        f"trial: {figures['requests']} requests, {figures['errors']} errors, "
        f"p95 {_shown(figures.get('p95_ms'))} ms, overlap with the live version {_shown(figures.get('overlap'))}"
    )
    return figures


def _on_trial(root: Path, store: ObjectStore, name: str) -> Candidate | None:
    """What is on trial; a record that nobody who is trusted has signed is none, since no service heeds it."""
    from components.serving.candidate import read_candidate

    try:
        return read_candidate(store, name, trusted(root))
    except IntegrityError:
        return None


def _watched(release: Release, plan: TrialPlan, number: str) -> dict[str, Any]:
    shown = f"{release.name}@v{release.version}"
    begun = time.monotonic()
    taken_up: float | None = None
    last, seen = None, begun
    while True:
        figures = _asked(plan.service, number)
        now = time.monotonic()
        if figures is not None:
            _require_well(shown, figures)
            seen = now
            # Behind one address there may be several services: what counts is the one that was asked most.
            if last is None or figures["requests"] >= last["requests"]:
                last = figures
            if taken_up is None and figures["state"] in ("loaded", "expired"):
                taken_up = now
        if taken_up is None and now - begun > _TAKE_UP_SECONDS:
            raise TrialError(
                f"the service at {_address(plan)} has not taken {shown} up within {_TAKE_UP_SECONDS:.0f} s",
                "Does it serve this model, from this store? Its log tells.",
            )
        # One of several has perhaps not looked yet.
        if taken_up is not None and now - seen > _TAKE_UP_SECONDS:
            raise TrialError(f"the service at {_address(plan)} has dropped {shown}", "Its log tells why.")
        if taken_up is not None and last is not None and now - taken_up >= plan.seconds:
            if not last["requests"]:
                raise TrialError(
                    f"{shown} got no request in {plan.seconds:g} s, so nothing is known of it",
                    "Try it longer, with a greater share, or when there is traffic.",
                )
            return last
        time.sleep(_POLL_SECONDS)


def _require_well(shown: str, figures: dict[str, Any]) -> None:
    if figures["state"] == "refused":
        raise TrialError(f"the service refuses {shown}: it does not verify there", "Its log names the file.")
    if figures["errors"]:
        raise TrialError(
            f"{shown} failed {figures['errors']} of {figures['requests']} requests on trial", "The service's log tells."
        )


def _asked(service: str, number: str) -> dict[str, Any] | None:
    """What the service tells of our candidate; None while it knows another one or none."""
    request = urllib.request.Request(f"{service}/model")
    if key := os.environ.get(KEY_VARIABLE):
        request.add_header("X-API-Key", key)
    shown = without_credentials(service)
    try:
        with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as answer:
            found = json.loads(answer.read(1 << 20)).get("candidate")
    except urllib.error.HTTPError as error:
        raise TrialError(
            f"the service at {shown} answers /model with status {error.code}",
            f"Is it a Recstill service? Its key, if it has one, goes into {KEY_VARIABLE}.",
        ) from None
    except (OSError, ValueError, AttributeError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise TrialError(
            f"the service at {shown} does not answer: {reason}", "Start it, or deploy without a trial."
        ) from None
    return found if isinstance(found, dict) and found.get("number") == number else None


def _address(plan: TrialPlan) -> str:
    return without_credentials(plan.service)


def _shown(figure: Any) -> str:
    return "unknown" if figure is None else f"{figure:.3g}"
