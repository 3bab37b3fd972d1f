"""``make frontier-page``: from the stored results to ``docs/frontier.md`` and its plots."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components.evaluation.plots import chart, is_round, shortened, svg_of
from components.storage.atomic import new_file
from tests.benchmarks.frontier.points import ROOT, Curve
from tests.benchmarks.frontier.published import PUBLISHED, Published
from tests.benchmarks.frontier.stored import CURVES, FOLDER, Row, Stored, read_stored

PAGE = ROOT / "docs" / "frontier.md"
# Of Okabe and Ito, as in the report; and a grey that is read on white and on black.
_COLORS: dict[Curve, str] = {
    "teacher": "#0072B2",
    "without_teacher": "#E08A00",
    "distilled": "#009E73",
    "quantized": "#3FA0DA",
    "distilled_quantized": "#D55E00",
    "all": "#B0478A",
}
_MARKERS: dict[Curve, str] = {
    "teacher": "*",
    "without_teacher": "s",
    "distilled": "^",
    "quantized": "D",
    "distilled_quantized": "o",
    "all": "P",
}
_INK = "#7A8087"
_LINES, _MARKS = (":", "--", "-."), ("x", "+", "1")  # Of published results, one after the other.
_HEAD = """# Quality against bytes and latency

What a number of bytes, or of microseconds, buys: small models trained without a teacher, distilled ones, a good teacher
merely quantized, and all of it together. Written by `make frontier-page` from `docs/frontier/*.json`, which
`make bench-frontier DATA=...` measures. Every point is the mean over its seeds, with a 95 % interval by bootstrap over
the test users; its share of the teacher is paired. Bytes are those of the ONNX file that is served, or of fp32 weights;
latency is the median at batch 1 as a share of one teacher member's in torch eager in the same run, one thread.
"""


def main() -> None:
    stored = read_stored()
    for path, content in files(stored):
        with new_file(path) as temporary:
            temporary.write_text(content, encoding="utf-8")
        print(path.relative_to(ROOT))


def files(stored: Sequence[Stored]) -> Iterator[tuple[Path, str]]:
    """The page and its plots, each with its content.

    Args:
        stored: What the page shows.
    """
    for one in stored:
        published = PUBLISHED.get(one.data, ())
        for cost, label, of in (
            ("bytes", "bytes", lambda row: float(row.bytes)),
            ("latency", "latency at batch 1 / one teacher member's in torch", lambda row: row.latency_ratio),
        ):
            yield FOLDER / f"{one.data}-{cost}.svg", plot(one, cost, label, of, published if cost == "bytes" else ())
    yield PAGE, page(stored)


def page(stored: Sequence[Stored]) -> str:
    """``docs/frontier.md``."""
    parts = [_HEAD]
    for one in stored:
        seeds = sorted({seed for row in one.rows for seed in row.seeds})
        parts.append(f"\n## {one.data}\n")
        parts.append(f"{one.measure} over {one.test_users:,} test users, seeds {', '.join(seeds)}.\n")
        parts += [f"{one.note}\n"] if one.note else []
        parts += [f"![{cost}](frontier/{one.data}-{cost}.svg)\n" for cost in ("bytes", "latency")]
        parts.append(f"| | run | {one.measure} | seeds | of the teacher | bytes | a row | latency |")
        parts.append("|---|---|---|---|---|---|---|---|")
        parts += [_line(row) for row in one.rows]
        for published in PUBLISHED.get(one.data, ()):
            size = "" if published.bytes is None else f"{published.bytes:,}"
            parts.append(f"| published: {published.name} | | {published.quality:.4f} | | | {size} | | |")
        parts.append("")
        parts += [f"- {published.name}: {published.source}." for published in PUBLISHED.get(one.data, ())]
        parts.append(
            "\nThe runs, of the first seed. Each writes its settings into `params.yaml`, so use a clone:\n\n```sh"
        )
        parts += [f"# {row.point}, at {row.commit}\n{row.command}" for row in _one_a_run(one.rows)]
        parts.append("```")
    return "\n".join(parts) + "\n"


def plot(stored: Stored, cost: str, label: str, of: Callable[[Row], float], published: Sequence[Published]) -> str:
    """Quality against a cost, an SVG file: the points of each curve, and a line through those that none of them beats.

    Args:
        stored: Whose rows.
        cost: Name of the cost.
        label: Of its logarithmic axis.
        of: A row's cost.
        published: To be marked; a line across where the size is not known.
    """
    with chart(f"frontier {stored.data} {cost}", (7.4, 4.8)) as (figure, axes):
        axes.set_xscale("log")
        for curve, title in CURVES.items():
            rows = sorted((row for row in stored.rows if row.curve == curve), key=of)
            if not rows:
                continue
            values = [row.quality[0] for row in rows]
            below, above = ([abs(row.quality[0] - row.quality[end]) for row in rows] for end in (1, 2))
            axes.errorbar(
                [of(row) for row in rows],
                values,
                yerr=[below, above],
                color=_COLORS[curve],
                marker=_MARKERS[curve],
                markersize=11 if curve == "teacher" else 5.5,
                linestyle="",
                elinewidth=0.7,
                capsize=2,
                label=title,
            )
            best = [row for row, value in zip(rows, values, strict=True) if value == max(_up_to(row, rows, of))]
            axes.plot([of(row) for row in best], [row.quality[0] for row in best], color=_COLORS[curve], linewidth=1.2)
        for one, line, mark in zip(published, _LINES, _MARKS, strict=False):
            name = f"published: {one.name}"
            if one.bytes is None:
                axes.axhline(one.quality, color=_INK, linewidth=0.9, linestyle=line, label=name)
            else:
                axes.plot([one.bytes], [one.quality], mark, color=_INK, markersize=8, label=name)
        axes.set_xlabel(label)
        axes.set_ylabel(stored.measure)
        axes.xaxis.set_major_formatter(lambda value, _: shortened(value))
        axes.xaxis.set_minor_formatter(lambda value, _: shortened(value) if is_round(value, axes) else "")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2, handletextpad=0.4)
        figure.tight_layout()
        return svg_of(figure, f"frontier-{stored.data}-{cost}").replace("currentColor", _INK) + "\n"


def _up_to(row: Row, rows: Sequence[Row], of: Callable[[Row], float]) -> list[float]:
    """Qualities of all that costs no more."""
    return [other.quality[0] for other in rows if of(other) <= of(row)]


def _line(row: Row) -> str:
    quality, low, high = row.quality
    seeds = ", ".join(f"{value:.4f}".removeprefix("0") for value in row.seeds.values())
    share, lowest, highest = row.retention
    of_teacher = "" if row.curve == "teacher" else f"{share:.1%} [{lowest:.1%}, {highest:.1%}]"
    name = f"{CURVES[row.curve]}: `{row.contender}`"
    figures = f"{quality:.4f} [{low:.4f}, {high:.4f}] | {seeds} | {of_teacher} | {row.bytes:,} | {row.row_bytes:g}"
    return f"| {name} | {row.point} | {figures} | {row.latency_ratio:.3f} |"


def _one_a_run(rows: Sequence[Row]) -> list[Row]:
    return list({row.point: row for row in sorted(rows, key=lambda row: row.point)}.values())


if __name__ == "__main__":
    main()
