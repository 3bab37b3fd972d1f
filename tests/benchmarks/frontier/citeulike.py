"""``citeulike``: students of several widths, their item rows in fp32 and in few bits, on the split of the KD papers.

A row of 64 values in four bits takes 34 bytes, scales included, one of 32 values 17 bytes; one of 64 values in two bits
18 bytes. They are what is compared at "36 bytes" and at "18 bytes".
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures import Figure
from tests.benchmarks.frontier.curves import STUDENT, TEACHER
from tests.benchmarks.frontier.points import Curve, Frontier, Judged, Point, difference, level, of_less_popular

_AWARE_4 = "pruning.quantization_aware={form: int4_table4}"
_AWARE_2 = "pruning.quantization_aware={form: int4_table2}"
_IN_4: dict[str, Curve] = {"pruned.int4_table4": "all"}
_IN_2: dict[str, Curve] = {"pruned.int4_table2": "all"}


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """What the issue of quality per byte asks of this set."""
    small = {36: ("d64-aware", "pruned.int4_table4"), 18: ("d32-aware", "pruned.int4_table4")}
    return [
        level("citeulike_r50_teacher", judged, "d20", "teacher"),
        level("citeulike_r50_ptq_int4", judged, "d20", "teacher_member.int8_table4"),
        level("citeulike_r50_d20", judged, "d20", "student.fp32"),
        *(
            difference(f"citeulike_gain_{width}", judged, (width, "student.fp32"), (width, "baseline"))
            for width in ("d20", "d32", "d64")
        ),
        *(
            of_less_popular(f"citeulike_less_popular_{width}", judged, (width, "student.fp32"), (width, "baseline"))
            for width in ("d20", "d32", "d64")
        ),
        *(level(f"citeulike_r50_{most}_bytes", judged, *point) for most, point in small.items()),
        *(
            Figure(f"citeulike_row_bytes_{name}", one.costs[contender].row_bytes)
            for name, contender in small.values()
            for one in judged
            if one.point == name and one.seed == judged[0].seed
        ),
    ]


FRONTIER = Frontier(
    "citeulike",
    "citeulike",
    ("quantization.variants=[fp32,int8_table8,int4_table4,int4_table2]",),
    (
        Point("d20", ("student.network.dim=20",), {**TEACHER, **STUDENT}),
        Point("d32", ("student.network.dim=32",), STUDENT),
        Point("d32-aware", ("student.network.dim=32", _AWARE_4), _IN_4),
        Point("d64", ("student.network.dim=64",), STUDENT),
        Point("d64-aware", ("student.network.dim=64", _AWARE_4), _IN_4),
        Point("d64-aware-2", ("student.network.dim=64", _AWARE_2), _IN_2),
    ),
    figures,
)
