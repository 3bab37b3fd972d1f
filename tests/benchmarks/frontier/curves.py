"""On which curve each contender of a run lies, where all frontiers agree."""

from __future__ import annotations

from tests.benchmarks.frontier.points import Curve

STUDENT: dict[str, Curve] = {
    "baseline": "without_teacher",
    "student.fp32": "distilled",
    "pruned.int8_table8": "distilled_quantized",
    "pruned.int4_table4": "distilled_quantized",
}
TEACHER: dict[str, Curve] = {
    "teacher": "teacher",
    "teacher_member.fp32": "quantized",
    "teacher_member.int8_table8": "quantized",
    "teacher_member.int8_table4": "quantized",
    "teacher_member.int4_table2": "quantized",
}
