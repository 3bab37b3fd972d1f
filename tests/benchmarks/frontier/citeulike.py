"""``citeulike``: students of several widths, their item rows in fp32 and in few bits, on the split of the KD papers."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.frontier.points import Figure, Frontier, Judged, Point, difference, level

# The student's width, and which contenders of its run are points of the frontier.
WIDTHS = {
    20: ("teacher", "teacher_member.int8_table8", "teacher_member.int8_table4", "student", "baseline"),
    32: ("pruned.int4_table4", "student", "baseline"),
    64: ("pruned.int4_table4", "student", "baseline"),
}


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """What the issue of quality per byte asks of this set."""
    return [
        level("citeulike_r50_teacher", judged, "d20", "teacher"),
        level("citeulike_r50_ptq_int4", judged, "d20", "teacher_member.int8_table4"),
        level("citeulike_r50_d20", judged, "d20", "student"),
        difference("citeulike_gain_d20", judged, ("d20", "student"), ("d20", "baseline")),
        level("citeulike_r50_36_bytes", judged, "d64", "pruned.int4_table4"),
        level("citeulike_r50_18_bytes", judged, "d32", "pruned.int4_table4"),
        *(
            Figure(f"citeulike_row_bytes_{name}", one.row_bytes[contender])
            for name, contender in (("d64", "pruned.int4_table4"), ("d32", "pruned.int4_table4"), ("d20", "student"))
            for one in judged
            if one.point == name and one.seed == judged[0].seed
        ),
    ]


FRONTIER = Frontier(
    "citeulike",
    tuple(Point(f"d{width}", (f"student.network.dim={width}",), contenders) for width, contenders in WIDTHS.items()),
    figures,
)
