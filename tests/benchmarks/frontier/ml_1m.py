"""``ml-1m``: students of three widths of a teacher of two large transformers, histories of 200 films, ids only.

One member of the teacher has 10.0 MB in fp32: a fiftieth of that is the 64 dimensions in four bits, a twentieth
the 128 dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.figures import Figure
from tests.benchmarks.frontier.curves import STUDENT, TEACHER
from tests.benchmarks.frontier.points import (
    Curve,
    Frontier,
    Judged,
    Point,
    bytes_share,
    difference,
    level,
    of_less_popular,
    share,
)

_INT4_ROWS: dict[str, Curve] = {"pruned.int8_table4": "distilled_quantized"}
_SHIPPED = "pruned.int4_table4"
_ALL: dict[str, Curve] = {_SHIPPED: "all"}
# Else it is neither cut nor fine-tuned: what is quantized is the student as it was distilled.
_AWARE = ("pruning.ffn_ratio=0.25", "pruning.quantization_aware={form: int4_table4}")
_FEW = "quantization.variants=[fp32,int8_table8,int4_table4]"
_MANY = "quantization.variants=[fp32,int8_table8,int8_table4,int4_table4,int4_table2]"
_WIDTHS = {
    "d128": (),
    "d64": ("student.network.dim=64", "student.network.ffn_dim=256", "student.optimization.learning_rate=0.006"),
    "d32": ("student.network.dim=32", "student.network.ffn_dim=128", "student.optimization.learning_rate=0.008"),
}


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """What the issue of quality per byte asks of this set."""
    return [
        level("ml_1m_ndcg10_teacher", judged, "d128", "teacher"),
        *(
            figure
            for part, width in (("20", "d128"), ("50", "d64"))
            for figure in (
                bytes_share(f"ml_1m_bytes_1_{part}", judged, (width, _SHIPPED)),
                share(f"ml_1m_kept_1_{part}", judged, (width, _SHIPPED), ("d128", "teacher")),
            )
        ),
        *(difference(f"ml_1m_gain_{width}", judged, (width, "student.fp32"), (width, "baseline")) for width in _WIDTHS),
        *(
            of_less_popular(f"ml_1m_less_popular_{width}", judged, (width, "student.fp32"), (width, "baseline"))
            for width in _WIDTHS
        ),
        difference("ml_1m_gain_over_quantized", judged, ("d128", _SHIPPED), ("d128", "teacher_member.int4_table2")),
        share("ml_1m_kept_int8", judged, ("d128", "pruned.int8_table8"), ("d128", "student.fp32")),
        share("ml_1m_kept_int4_rows", judged, ("d128", "pruned.int8_table4"), ("d128", "student.fp32")),
        share(
            "ml_1m_kept_int4_rows_fine_tuned",
            judged,
            ("d128-fine-tuned", "pruned.int8_table4"),
            ("d128", "student.fp32"),
        ),
        share(
            "ml_1m_kept_int4_rows_of_teacher",
            judged,
            ("d128", "teacher_member.int8_table4"),
            ("d128", "teacher_member.fp32"),
        ),
    ]


FRONTIER = Frontier(
    "ml-1m",
    "movielens_1m",
    (),
    (
        *(
            point
            for width, changes in _WIDTHS.items()
            for point in (
                Point(
                    width,
                    (*changes, _MANY if width == "d128" else _FEW),
                    {**TEACHER, **STUDENT, **_INT4_ROWS} if width == "d128" else STUDENT,
                ),
                Point(f"{width}-aware", (*changes, *_AWARE, _FEW), _ALL),
            )
        ),
        Point(
            "d128-fine-tuned",
            ("quantization.variants=[fp32,int8_table4]", "quantization.fine_tuning={}"),
            _INT4_ROWS,
        ),
    ),
    figures,
)
