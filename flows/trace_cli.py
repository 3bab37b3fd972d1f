"""``recstill trace``: from any bytes to their teacher and data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(trace)


def trace(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|FOLDER|DIGEST|NAME@vN|SCENARIO@REV",
            help="A file or folder, known by its bytes alone; a digest or its first 8 digits; a version; "
            "the data set of a scenario at a revision.",
            show_default=False,
        ),
    ],
    *,
    where: Annotated[
        bool, typer.Option("--where", help="Look where the bytes still are: work tree, DVC's cache and remote, store.")
    ] = False,
    warm_starts: Annotated[
        bool, typer.Option("--warm-starts", help="Follow the chains of the teachers that teachers have started from.")
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.svg|.png", help="Draw the chain into a file.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Where bytes come from: quantized, pruned, student, soft labels, teacher, data set, source.

    From the content alone, wherever a file lies and whatever it is called. What makes the chain weaker is said: not
    attested, attached afterwards, a dirty tree, bytes that are gone. Exit status 1: nothing is known about the bytes;
    3: something in the chain is recalled.
    """
    start = Path.cwd()
    from flows.auditing.exit_status import FOUND
    from flows.auditing.lineage import Lineage, place
    from flows.auditing.lineage_tree import document_of, tree_of
    from flows.auditing.resolving import resolve
    from flows.console import Console

    asked = start / what if what and (start / what).exists() else what
    lineage = Lineage(place())
    chain = lineage.trace(resolve(lineage, str(asked)), warm_starts=warm_starts)
    chain.subject.text = what
    if where:
        from flows.auditing.presence import look

        look(lineage, chain)
    if picture is not None:
        from flows.auditing.picture import draw

        draw(chain, start / picture)
    console = Console()
    if as_json:
        console.document(document_of(chain))
    else:
        console.tree(tree_of(chain))
        if picture is not None:
            console.say(f"picture: {picture}")
    if chain.recalls:
        raise typer.Exit(FOUND)
