"""``recstill erase``: where a person is, what follows from their data, and taking them out of it."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import DataError, RecstillError

if TYPE_CHECKING:
    from components.provenance.receipts import Receipt
    from flows.auditing.person_plan import Found
    from flows.auditing.places import Places
    from flows.auditing.purging import Erasure, Target
    from flows.console import Console

_PLACES = {
    "tree": "files in work trees",
    "reader": "parts in readers' caches",
    "cache": "objects in DVC's cache",
    "store": "objects in the store",
    "remote": "objects in DVC's remote",
}


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(erase)


def erase(
    subject: Annotated[
        str, typer.Option("--subject", metavar="ID", help="The person's id in the source; - reads it from the input.")
    ],
    *,
    scenario: Annotated[str | None, typer.Option("--scenario", help="Only this scenario's data; else all.")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Do it. Without this, it is only said.")] = False,
    purge_models: Annotated[
        bool, typer.Option("--purge-models", help="Delete weights and models too that were trained on them.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Delete although what is live was made from them.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the receipt.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Say which versions of the data hold a person and what came of them; with --confirm, take them out.

    --confirm first puts the person on the exclusion list in params.yaml, by a keyed hash, so that no run sees them
    again. While a version that was made from them is live it stops there: commit, retrain, deploy, and give the command
    again. Then every object that holds their rows is deleted: events, data sets, soft labels, golden requests, in DVC's
    remote and caches, the store and all work trees, and a signed receipt says what. Killed anywhere, it goes on.

    Exit status 3: the person is somewhere, and nothing was deleted, or of some data nobody can say. 0: they are
    nowhere, or not any more.
    """
    from components.data.subject_key import subject_key_made
    from flows.auditing.exit_status import FOUND
    from flows.auditing.lock_history import LockHistory
    from flows.auditing.person_plan import find_person, require_scenario
    from flows.auditing.places import opened_places
    from flows.auditing.purging import begun, planned
    from flows.auditing.standing_still import no_retraining
    from flows.console import Console
    from flows.params import read_params
    from flows.repository import enter_checkout, keys_of

    person = sys.stdin.readline().rstrip("\n") if subject == "-" else subject
    if not person:
        raise DataError("no id is given", "Give the person's id in the source: --subject ID.")
    root, console = enter_checkout(), Console()
    say = (lambda _: None) if as_json else console.say
    key = subject_key_made(keys_of(root))
    # A retraining that has begun before would write again what is deleted.
    still = read_params(root).scenarios if confirm else ()
    with opened_places(root) as places, no_retraining(places, still):
        history = LockHistory.read(root)
        require_scenario(history, read_params(root).scenarios, scenario)
        found = find_person(places, history, person, key, say, scenario=scenario)
        plan = planned(places, history, found, person, models=purge_models)
        earlier = begun(root, found.mark)
        record = _record(found, plan, history.notes)
        if not as_json:
            _told(console, found, plan, history.notes, resumed=earlier is not None)
        held = bool(found.data or plan.targets or earlier)
        if confirm and held:
            record |= _done(root, console, places, found, plan, force=force, reason=reason, quiet=as_json)
    if as_json:
        console.document(record)
    if held and not confirm:
        if not as_json:
            console.say("Nothing was changed. --confirm does it.", style="bold")
        raise typer.Exit(FOUND)
    if record["blocked"]:
        raise RecstillError(record["blocked"], _NEXT.format(name=found.live[0].name))
    if found.unknown:  # they may be in it
        raise typer.Exit(FOUND)


_NEXT = (
    "Commit params.yaml, then `recstill retrain {name}`, `recstill deploy {name}`, and the same command again; or give "
    "--force: what is live goes on answering, and can be neither loaded again nor compared with."
)


def _done(
    root: Path,
    console: Console,
    places: Places,
    found: Found,
    plan: Erasure,
    *,
    force: bool,
    reason: str,
    quiet: bool,
) -> dict[str, Any]:
    from flows.auditing.excluding import excluded
    from flows.auditing.purging import begun

    changed = excluded(root, found.scenarios, found.key, found.mark)
    if changed and not quiet:
        console.say(
            f"params.yaml: the person is on the exclusion list of {', '.join(changed)}; commit it", style="green"
        )
    if found.live and not force and begun(root, found.mark) is None:
        live = ", ".join(str(release) for release in found.live)
        blocked = f"{live} is live and was made from this person's data: nothing was deleted"
        return {"excluded": changed, "blocked": blocked, "receipt": None, "left": []}
    receipt, left = _carried_out(console, places, plan, reason=reason, quiet=quiet)
    if receipt is None:
        raise RecstillError(
            f"{len(left)} objects are there again: {left[0].gone.what} in {left[0].gone.place}",
            "Something is writing them: let it end, then give the same command again.",
        )
    if not quiet:
        console.say(
            f"erased: {len(receipt.objects)} objects, none of them is there any more; receipt {receipt.number}, "
            f"sha256:{receipt.digest}",
            style="bold green",
        )
        console.say(
            "Not in Recstill's hands: the source itself, copies that others have fetched, backups, and versions of "
            "objects that the store may keep.",
            style="yellow",
        )
    return {"excluded": changed, "blocked": "", "receipt": receipt.record(), "left": []}


def _carried_out(
    console: Console, places: Places, plan: Erasure, *, reason: str, quiet: bool
) -> tuple[Receipt | None, list[Target]]:
    from rich.progress import Progress

    from flows.auditing.purging import begun, carry_out

    earlier = begun(places.root, plan.mark)
    total = len(plan.targets) + (len(earlier.targets) if earlier else 0)
    with Progress(transient=True, disable=quiet or not console.is_terminal) as progress:
        task = progress.add_task("deleting", total=total)
        return carry_out(places, plan, lambda _: progress.advance(task), why=reason)


def _told(console: Console, found: Found, plan: Erasure, notes: list[str], *, resumed: bool) -> None:
    from flows.cache_tables import counted, size

    console.say(f"{found.mark} (a keyed hash of the person, key {found.key})", style="bold")
    for one in found.data:
        where = ", ".join(one.versions) or str(one.locks[-1])
        rows = f"{one.rows:,} events" if one.rows else "how many events is not known any more"
        dropped = "" if one.in_dataset else "; not in the prepared data set"
        console.say(f"  in the data of {one.scenario}, {one.digest[:12] or 'no data set'} ({where}): {rows}{dropped}")
    for one in found.erased:
        console.say(f"  erased from the data of {one.scenario}, {one.digest[:12]}", style="green")
    for one in found.unknown:
        console.say(
            f"  not known of the data of {one.scenario} in {one.locks[0]}: it has no usable sketch, and not all of its "
            "bytes are here or in the remote",
            style="yellow",
        )
    for note in notes:
        console.say(f"  {note}", style="yellow")
    if not found.data and not plan.targets:
        console.say(f"in none of {counted(found.asked, 'version')} of the data that can be asked", style="green")
    if found.follows:
        outputs = ", ".join(f"{count} x {kind}" for kind, count in found.follows.items())
        console.say(f"  came of it, by all locks: {outputs}")
    if found.caches:
        console.say(f"  soft labels: {', '.join(one[:12] for one in found.caches)}")
    live = set(map(str, found.live))
    golden = set(map(str, found.golden_of))
    for release in found.releases:
        marks = [
            word for word, yes in (("live", str(release) in live), ("golden requests", str(release) in golden)) if yes
        ]
        console.say(
            f"  {release}{': ' + ', '.join(marks) if marks else ''}", style="bold red" if "live" in marks else ""
        )
    if resumed:
        console.say("an erasure of this person was begun and has not ended: --confirm goes on", style="yellow")
    if found.data or plan.targets:
        _told_plan(console, found, plan, size)


def _told_plan(console: Console, found: Found, plan: Erasure, size: Any) -> None:
    counts = Counter(one.gone.place for one in plan.targets)
    sizes: Counter[str] = Counter()
    for one in plan.targets:
        sizes[one.gone.place] += one.bytes
    console.say("plan, in this order:", style="bold")
    console.say(
        f"  1. put the person on source.exclude of {', '.join(found.scenarios) or 'no scenario'} in params.yaml"
    )
    if found.live:
        names = sorted({release.name for release in found.live})
        console.say(f"  2. retrain and deploy {', '.join(names)}: what is live was made from them", style="bold red")
    else:
        console.say("  2. nothing that is live was made from them: no retraining is needed first")
    for number, (place, title) in enumerate(_PLACES.items(), start=3):
        console.say(f"  {number}. delete {counts[place]} {title}, {size(sizes[place])}")
    console.say(f"  {len(_PLACES) + 3}. write a signed receipt, which names digests only")


def _record(found: Found, plan: Erasure, notes: list[str]) -> dict[str, Any]:
    return {
        "subject": found.mark,
        "key": found.key,
        "asked": found.asked,
        "data": [one.record() for one in found.data],
        "erased": [one.record() for one in found.erased],
        "unknown": [one.record() for one in found.unknown],
        "follows": found.follows,
        "soft_label_caches": found.caches,
        "releases": [str(one) for one in found.releases],
        "live": [str(one) for one in found.live],
        "golden_requests": [str(one) for one in found.golden_of],
        "plan": [
            {**one.gone._asdict(), "digests": list(one.gone.digests), "path": one.path, "bytes": one.bytes}
            for one in plan.targets
        ],
        "receipts": [one.number for one in found.receipts],
        "notes": notes,
        "excluded": [],
        "blocked": "",
        "receipt": None,
    }
