"""``recstill recall``: this data set, teacher or version is bad, and so is all that came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from components.errors import DataError, RecstillError
from flows.auditing.exit_status import FOUND

if TYPE_CHECKING:
    from components.provenance.recalls import Recall
    from flows.auditing.recalling import Heir, Releases, Target
    from flows.console import Console

_STYLES = {"live": "bold red", "was live": "red", "registered": ""}


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(recall)


def recall(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="SCENARIO@REVISION|NAME@vN|DIGEST",
            help="A data set as a commit, branch or tag has it; a version; or a digest of 8 digits or more: of a data "
            "set, teacher, file, package. With --lift also the number of a recall. Without it the recalls in force "
            "are listed.",
        ),
    ] = None,
    *,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; shown wherever the recall stops something.")
    ] = "",
    lift: Annotated[bool, typer.Option("--lift", help="Take a recall back.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON; needs --yes to change anything.")] = False,
) -> None:
    """Mark a data set, a teacher or a version as bad, signed: all that came of it inherits it.

    Neither deploy, rollback nor a service takes up what is recalled, and retraining starts from none of it. What a
    service answers with already goes on, and says so: roll back. Without TARGET, exit status 3 says that there are
    recalls in force.
    """
    from flows.console import Console

    console = Console()
    if target is None:
        if lift or reason:
            raise DataError("nothing is named that could be recalled", "recstill recall NAME@vN --reason TEXT")
        _list(console, as_json)
        return
    if not reason.strip():
        raise DataError("a recall needs a reason", "It is shown wherever the recall stops something: --reason TEXT")
    if as_json and not yes:
        raise RecstillError("with --json nobody is asked", "Give --yes, or leave out --json to look first.")
    document = (
        _lifted(console, target, reason, yes, as_json) if lift else _recalled(console, target, reason, yes, as_json)
    )
    if as_json and document is not None:
        console.document(document)


def _list(console: Console, as_json: bool) -> None:
    from flows.auditing.recalled import recalls_now
    from flows.auditing.recalling import every_release, heirs
    from flows.repository import enter_checkout, store_of

    root = enter_checkout()
    store = store_of(root)
    found = recalls_now(root, store).recalls
    releases = every_release(root, store)
    inherits = {one.number: heirs(releases.known, one.digests) for one in found}
    if as_json:
        rows = [{**one.record(), "inherits": [_heir(heir) for heir in inherits[one.number]]} for one in found]
        console.document({"recalls": rows, "notes": list(releases.notes)})
    else:
        if not found:
            console.say(f"nothing is recalled in {store.address}")
        for one in found:
            console.say(str(one), style="bold red")
            _show(console, inherits[one.number], releases)
    if found:
        raise typer.Exit(FOUND)


def _recalled(console: Console, text: str, reason: str, yes: bool, quiet: bool) -> dict[str, Any] | None:
    from components.provenance.recalls import put_recall, recall_log
    from flows.auditing.recalled import recalls_now
    from flows.auditing.recalling import every_release, heirs, target_of
    from flows.auditing.witness import check_and_remember
    from flows.repository import enter_checkout, identity, store_of
    from flows.trust import signer

    root = enter_checkout()
    store = store_of(root)
    state = recalls_now(root, store)
    key = signer(root, "no service would heed the recall")
    releases = every_release(root, store)
    target = target_of(root, store, text, releases.known)
    inherit = heirs(releases.known, target.digests)
    if known := next((one for one in state.recalls if target.digests <= one.digests), None):
        if not quiet:
            console.say(f"{text} is recalled already: {known}")
        return _document(known, target, inherit, releases)
    if not quiet:
        _introduce(console, target, inherit, releases)
    if not yes and not console.agrees(f"Recall {_named(target)}?"):
        console.say("nothing was recalled")
        return None
    who = identity(root).name
    written = put_recall(
        store,
        digests=target.digests,
        kind=target.kind,
        name=target.name,
        reason=reason,
        who=who,
        expected=state.number,
        key=key,
    )
    check_and_remember(root, store, recall_log(store))
    if not quiet:
        console.say(f"recall {written.number} is signed: {_named(target)}", style="bold")
        for heir in (one for one in inherit if one.state == "live"):
            console.say(
                f"{heir.release} is live and recalled: it answers until you `recstill rollback {heir.release.name}` or "
                "deploy another version",
                style="bold red",
            )
    return _document(written, target, inherit, releases)


def _lifted(console: Console, text: str, reason: str, yes: bool, quiet: bool) -> dict[str, Any] | None:
    from components.provenance.recalls import put_recall, recall_log
    from flows.auditing.recalled import recalls_now
    from flows.auditing.recalling import every_release, heirs, target_of
    from flows.auditing.witness import check_and_remember
    from flows.repository import enter_checkout, identity, store_of
    from flows.trust import signer

    root = enter_checkout()
    store = store_of(root)
    state = recalls_now(root, store)
    key = signer(root, "no service would heed it")
    releases = every_release(root, store)
    if text.removeprefix("#").isdecimal() and len(text) < 8:
        chosen = [one for one in state.recalls if one.number == int(text.removeprefix("#"))]
    else:
        chosen = [one for one in state.recalls if one.name == text]
        chosen = chosen or [
            one for one in state.recalls if one.digests <= target_of(root, store, text, releases.known).digests
        ]
    if not chosen:
        raise DataError(f"no recall of {text} is in force", "`recstill recall` lists those that are.")
    if not quiet:
        for one in chosen:
            console.say(str(one))
            _show(console, heirs(releases.known, one.digests), releases)
    if not yes and not console.agrees(f"Lift {'it' if len(chosen) == 1 else f'these {len(chosen)}'}?"):
        console.say("nothing was lifted")
        return None
    number, written = state.number, []
    for one in chosen:
        done = put_recall(
            store,
            digests=one.digests,
            kind=one.kind,
            name=one.name,
            reason=reason,
            who=identity(root).name,
            expected=number,
            key=key,
            lifts=one.number,
        )
        number = done.number
        written.append(done)
        if not quiet:
            console.say(f"recall {one.number} is lifted (entry {done.number})", style="bold")
    check_and_remember(root, store, recall_log(store))
    return {"lifted": [one.number for one in chosen], "entries": [one.record() for one in written]}


def _introduce(console: Console, target: Target, inherit: list[Heir], releases: Releases) -> None:
    console.say(f"{_named(target)}:")
    for digest in sorted(target.digests):
        console.say(f"  {digest}")
    for note in target.notes:
        console.say(note, style="yellow")
    _show(console, inherit, releases)


def _show(console: Console, inherit: list[Heir], releases: Releases) -> None:
    from rich.table import Table
    from rich.text import Text

    for note in releases.notes:
        console.say(note, style="yellow")
    if not inherit:
        console.say(f"none of {len(releases.known)} releases in the store inherits it")
        return
    table = Table(box=None, pad_edge=False)
    for title in ("inherits it", "state", "by its"):
        table.add_column(title, overflow="fold")
    for one in inherit:
        cells = (str(one.release), one.state, ", ".join(one.through))
        table.add_row(*(Text(cell) for cell in cells), style=_STYLES[one.state])
    console.table(table)


def _named(target: Target) -> str:
    return f"{target.kind} {target.name}" if target.kind != "unknown" else f"content {target.name}"


def _heir(one: Heir) -> dict[str, Any]:
    release = one.release
    return {"name": release.name, "version": release.version, "state": one.state, "through": list(one.through)}


def _document(written: Recall, target: Target, inherit: list[Heir], releases: Releases) -> dict[str, Any]:
    notes = [*target.notes, *releases.notes]
    return {**written.record(), "inherits": [_heir(one) for one in inherit], "notes": notes}
