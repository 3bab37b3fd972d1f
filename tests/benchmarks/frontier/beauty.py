"""``beauty``: one-block students of two widths of a teacher of two blocks, leave one out, ids only."""

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

_SHIPPED = "pruned.int8_table4"
_SMALLEST = "pruned.int4_table4"
_ALL: dict[str, Curve] = {_SMALLEST: "all"}
# Neither cut nor fine-tuned: what is quantized is the student as it was distilled.
_AS_DISTILLED = ("pruning.ffn_ratio=0", "pruning.heads_ratio=0")
_AWARE = (
    "pruning.ffn_ratio=0.25",
    "pruning.heads_ratio=0",
    "pruning.quantization_aware={form: int4_table4}",
    "pruning.optimization.max_epochs=4",
    "pruning.optimization.patience=4",
)
# Half of all channels and heads, and what is left learns to be the student again.
_HALVED = (
    "pruning.ffn_ratio=0.5",
    "pruning.heads_ratio=0.5",
    "pruning.reconstruction=true",
    "pruning.soft_labels_of=student",
    "pruning.optimization.learning_rate=0.004",
    "pruning.optimization.average_decay=0.99",
)
_SIXTEEN_EPOCHS = ("pruning.optimization.max_epochs=16", "pruning.optimization.patience=16")
_TWELVE_EPOCHS = ("pruning.optimization.max_epochs=12", "pruning.optimization.patience=12")
# The network whose latency `bench-serving` measures has two blocks.
_TWO_BLOCKS = (
    "student.network={dim: 64, blocks: 2, heads: 2, ffn_dim: 128, max_length: 50, dropout: 0.2}",
    "student.optimization.learning_rate=0.004",
    "student.optimization.max_epochs=16",
)
_FEW = "quantization.variants=[fp32,int8_table8,int8_table4,int4_table4]"
_EIGHT = "quantization.variants=[fp32,int8_table8]"
_MANY = "quantization.variants=[fp32,int8_table8,int8_table4,int4_table4,int4_table2]"
_WIDTHS = {
    "d64": (
        "student.network={dim: 64, blocks: 1, heads: 2, ffn_dim: 128, max_length: 50, dropout: 0.2}",
        "student.optimization.learning_rate=0.004",
    ),
    "d32": (
        "student.network={dim: 32, blocks: 1, heads: 2, ffn_dim: 64, max_length: 50, dropout: 0.1}",
        "student.optimization.learning_rate=0.006",
    ),
}


def figures(judged: Sequence[Judged]) -> list[Figure]:
    """What the issue of quality per byte asks of this set."""
    return [
        level("beauty_ndcg10_teacher", judged, "d64", "teacher"),
        *(
            figure
            for width in _WIDTHS
            for figure in (
                bytes_share(f"beauty_bytes_{width}", judged, (width, _SHIPPED)),
                share(f"beauty_kept_{width}", judged, (width, _SHIPPED), ("d64", "teacher")),
                bytes_share(f"beauty_bytes_{width}_aware", judged, (f"{width}-aware", _SMALLEST)),
                share(f"beauty_kept_{width}_aware", judged, (f"{width}-aware", _SMALLEST), ("d64", "teacher")),
                difference(f"beauty_gain_{width}", judged, (width, "student.fp32"), (width, "baseline")),
                of_less_popular(f"beauty_less_popular_{width}", judged, (width, "student.fp32"), (width, "baseline")),
            )
        ),
        *(
            share(figure, judged, (f"{student}-halved", "pruned.int8_table8"), (student, "student.fp32"))
            for figure, student in (("beauty_kept_halved", "d64"), ("beauty_kept_halved_two_blocks", "d64-two-blocks"))
        ),
    ]


FRONTIER = Frontier(
    "beauty",
    "shop",
    # The scenario is made for two processor cores: here the teacher is larger, and no softmax is sampled.
    (
        "trainer.accelerator=auto",
        "teacher.network={dim: 128, blocks: 2, heads: 2, ffn_dim: 256, max_length: 50, dropout: 0.3}",
        # Three networks that learn from labels as well, which takes fewer epochs; the one before them has none.
        "teacher.generations=2",
        "teacher.first_members=1",
        "teacher.members=3",
        "teacher.first_optimization={max_epochs: 30, patience: 5, batch_size: 32, learning_rate: 0.002, "
        "weight_decay: 0.1, warmup_share: 0.08, final_learning_rate_share: 0.01, average_decay: 0.99, "
        "full_softmax_up_to: 50000, negatives: 1024}",
        "teacher.optimization.max_epochs=18",
        "teacher.optimization.patience=5",
        "teacher.optimization.learning_rate=0.004",
        *(f"{network}.full_softmax_up_to=50000" for network in ("teacher.optimization", "student.optimization")),
        "student.optimization.max_epochs=20",
        "student.optimization.patience=5",
    ),
    (
        *(
            point
            for width, changes in _WIDTHS.items()
            for point in (
                Point(
                    width,
                    (*changes, *_AS_DISTILLED, _MANY if width == "d64" else _FEW),
                    {**STUDENT, **(TEACHER if width == "d64" else {}), _SHIPPED: "distilled_quantized"},
                ),
                Point(f"{width}-aware", (*changes, *_AWARE, _FEW), _ALL),
            )
        ),
        Point(
            "d64-halved",
            (*_WIDTHS["d64"], *_HALVED, *_SIXTEEN_EPOCHS, _EIGHT),
            {"pruned.int8_table8": "distilled_quantized"},
        ),
        Point("d64-two-blocks", (*_TWO_BLOCKS, *_AS_DISTILLED, _EIGHT), {"student.fp32": "distilled"}),
        Point(
            "d64-two-blocks-halved",
            (*_TWO_BLOCKS, *_HALVED, *_TWELVE_EPOCHS, _EIGHT),
            {"pruned.int8_table8": "distilled_quantized"},
        ),
    ),
    figures,
)
