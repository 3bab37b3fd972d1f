"""``recstill tune``: search for a recipe that meets a budget, and write it into params.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from flows.console import Console
    from flows.tuning.outcome import Outcome


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(tune)


def tune(  # noqa: PLR0917 - options, given by name
    scenario: Annotated[str, typer.Argument(help="A scenario of params.yaml.")],
    max_bytes: Annotated[
        str | None,
        typer.Option(
            "--max-bytes", metavar="SIZE", help="Bytes of the model file and its lineage at most: 200kB, 1.5MB, 64KiB."
        ),
    ] = None,
    max_p95: Annotated[
        str | None,
        typer.Option("--max-p95", metavar="TIME", help="95th percentile of the latency at batch 1: 1ms, 250us."),
    ] = None,
    min_retention: Annotated[
        str | None,
        typer.Option("--min-retention", metavar="SHARE", help="Share of the teacher's quality to keep: 0.98 or 98%."),
    ] = None,
    trials: Annotated[int, typer.Option("--trials", min=1, help="Recipes to try in all, earlier runs included.")] = 30,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Trials at once; as many as there are cores by default.")
    ] = None,
    max_time: Annotated[
        str | None, typer.Option("--max-time", metavar="TIME", help="Begin no trial after this time: 30m, 6h.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option("--storage", metavar="URL", help="Database of the study, else a file below .recstill/tune."),
    ] = None,
    apply: Annotated[bool, typer.Option("--apply", help="Write the recipe into params.yaml; else show it.")] = False,
) -> None:
    """Search sizes, losses, pruning and bits for the best student within limits, over the one cache of soft labels.

    Limits that are not given are the scenario's own `budget` and `gate`. Quality is that of the validation points. Run
    the same command again to go on after an interruption, or to apply what was found.
    """
    from flows.cli import _checkout
    from flows.console import Console
    from flows.tune import Budgeted, scenario_of
    from flows.tune import tune as search
    from flows.tuning.limits import limits_of, parsed_seconds

    root, console = _checkout(), Console()
    asked = limits_of(scenario_of(root, scenario), max_bytes, max_p95, min_retention)
    seconds = None if max_time is None else parsed_seconds(max_time)
    outcome, report = search(root, scenario, asked, Budgeted(trials, workers, seconds, storage), console.say)
    best = outcome.best
    if best is None:
        raise outcome.refusal(str(report))
    _show(console, outcome)
    console.say(f"report: {report}")
    _offer(console, root, outcome, apply=apply)


def _show(console: Console, outcome: Outcome) -> None:
    from rich.table import Table
    from rich.text import Text

    from components.evaluation.formats import percent
    from flows.tuning.progress import recipe_words

    best, reference = outcome.best, outcome.reference
    table = Table(title=f"validation: {outcome.record['tested']}", title_justify="left", pad_edge=False)
    for heading in ("point", reference.title, "of the teacher's", "bytes", "p95 ms", "recipe, where it differs"):
        table.add_column(heading, justify="right" if heading not in ("point", "recipe, where it differs") else "left")
    shown = [point for point in outcome.frontier("bytes") if point.verdict.met or point == best]
    for point in shown if best in shown or best is None else [*shown, best]:
        low, high = point.figures.get("retention_low"), point.figures.get("retention_high")
        chosen = point == best
        table.add_row(
            f"{point.name} ◀ chosen" if chosen else point.name,
            f"{point.quality:.4f}",
            f"{percent(point.figures.get('retention'))} [{percent(low)}, {percent(high)}]",
            f"{point.bytes:,}",
            f"{point.figures.get('p95_ms', float('nan')):.3f}",
            Text(recipe_words(outcome.differences(point)) or "as it is"),
            style="bold green" if chosen else "",
        )
    console.table(table)
    if outcome.counted:
        console.say(outcome.counted, style="dim")


def _offer(console: Console, root: Path, outcome: Outcome, *, apply: bool) -> None:
    """Show what the chosen recipe changes in params.yaml; write it when that was asked for."""
    from components.settings.reading import PARAMS_FILE
    from flows.tuning.patch import diff_of, patched, write_params

    best = outcome.best
    assert best is not None
    before = (root / PARAMS_FILE).read_text(encoding="utf-8")
    after = patched(before, outcome.name, outcome.changes(best))
    difference = diff_of(before, after)
    if not difference:
        console.say(f"{PARAMS_FILE} has this recipe already: `recstill run {outcome.name}`")
        return
    console.say("")
    for line in difference.splitlines():
        console.say(line, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))
    if apply:
        write_params(root, after)
        console.say(
            f"\n{PARAMS_FILE} is changed; `recstill run {outcome.name}` trains it, measures it on the test points and "
            "holds it to the limits",
            style="bold",
        )
    else:
        console.say("\nnothing is changed; the same command with --apply writes it", style="bold")
