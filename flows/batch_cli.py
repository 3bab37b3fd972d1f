"""``recstill batch``: every request of a file answered, many at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command to the main app."""
    app.command()(batch)


def batch(
    package: Annotated[Path, typer.Argument(help="A package folder, e.g. artifacts/movielens/package.")],
    requests: Annotated[Path, typer.Argument(help="Requests as the service takes them, JSON, one a line.")],
    answers: Annotated[Path, typer.Argument(help="Where the answers go, JSON, one a line in the same order.")],
    openvino: Annotated[
        Path | None,
        typer.Option(
            "--openvino",
            metavar="FOLDER",
            help="Compute with OpenVINO: the folder quantized/openvino of the run that made the package.",
        ),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the processor.")] = 1,
) -> None:
    """Answer a file of requests with a package, one by one, or in batches of 64 with OpenVINO."""
    from components.serving.batch_answering import answer_file
    from components.serving.batch_predictor import BatchPredictor
    from components.serving.opening import open_package
    from components.soft_labels.progress import RowProgress
    from flows.console import Console

    lines = _lines(requests)
    with RowProgress(lines, "answering", show=lines > 0) as progress:
        if openvino is None:
            # Activations that are quantized on the fly share a scale in a batch: one at a time, as the service answers.
            done = answer_file(open_package(package, threads), requests, answers, together=1, watch=progress.advance)
        else:
            done = answer_file(BatchPredictor(package, openvino, threads), requests, answers, watch=progress.advance)
    Console().say(f"{done.requests:,} requests answered in {done.seconds:.1f} s, {done.rate:,.0f} a second: {answers}")


def _lines(requests: Path) -> int:
    """How many there are; 0 where that cannot be read, which is told when the requests are."""
    try:
        with requests.open("rb") as lines:
            return sum(1 for line in lines if line.strip())
    except OSError:
        return 0
