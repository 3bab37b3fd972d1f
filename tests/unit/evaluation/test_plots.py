import re
from itertools import combinations
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import polars as pl
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from components.evaluation.labels import place_labels
from components.evaluation.plots import cost_plot, curves_plot, strata_plot

COSTS = pl.DataFrame(
    {
        "contender": ["teacher", "baseline", "student", "pruned", "pruned.fp32", "pruned.int8_table8"],
        "family": ["teacher", "baseline", "student", "pruned", "pruned", "pruned"],
        "bytes": [1e6, 1e5, 1e5, 8e4, 8.1e4, 2e4],
        "quality": [0.10, 0.085, 0.095, 0.094, 0.094, 0.093],
    }
)
CURVES = pl.DataFrame(
    {"network": ["member-0"] * 2 + ["student"] * 2, "epoch": [0, 1] * 2, "validation": [0.1, 0.2, 0.1, 0.15]}
)
POPULARITY = pl.DataFrame(
    {"contender": ["teacher"] * 2, "bucket": [0, 1], "group": ["0-5", "6-9"], "targets": [10, 11]}
).with_columns(quality=pl.lit(0.1))


def charts() -> dict[str, str]:
    return {
        "cost": cost_plot(
            COSTS, "bytes", "bytes", quality="NDCG@10", shipped="pruned.int8_table8", floor=0.09, limit=5e4
        ),
        "refused": cost_plot(COSTS, "bytes", "bytes", quality="NDCG@10", shipped=None, floor=0.2, limit=None),
        "curves": curves_plot(CURVES, "NDCG@10"),
        "popularity": strata_plot(POPULARITY, {"teacher": "teacher"}, None, quality="NDCG@10", axis="events"),
    }


def test_curves_of_earlier_generations_are_the_teachers_too() -> None:
    earlier = CURVES.with_columns(pl.col("network").replace("student", "generation-1-member-2"))
    words = [*ElementTree.fromstring(curves_plot(earlier, "NDCG@10")).itertext()]
    assert "teacher, member 0" in words and "teacher, generation 1, member 2" in words


@pytest.mark.parametrize("name", ["cost", "refused", "curves", "popularity"])
def test_a_chart_is_one_svg_element_that_fetches_nothing(name: str) -> None:
    text = charts()[name]
    assert ElementTree.fromstring(text).tag.endswith("svg")
    assert not re.findall(r'(?:href|src)="(?!#)', text)
    assert "currentColor" in text


def test_the_same_numbers_give_the_same_bytes_and_other_numbers_do_not() -> None:
    assert charts() == charts()
    other = COSTS.with_columns(pl.col("quality") * 1.01)
    assert (
        cost_plot(other, "bytes", "bytes", quality="NDCG@10", shipped=None, floor=0.2, limit=None)
        != charts()["refused"]
    )


def test_ids_of_charts_on_one_page_do_not_meet() -> None:
    ids = [set(re.findall(r'\bid="([^"]+)"', text)) for name, text in charts().items() if name != "refused"]
    assert all(ids)
    assert not any(a & b for a, b in combinations(ids, 2))


def test_a_network_and_its_fp32_export_are_one_point_in_bytes() -> None:
    text = charts()["cost"]
    assert ">fp32<" in text.replace(" ", "")
    assert ">torch<" not in text.replace(" ", "")


def test_labels_of_points_close_together_do_not_cover_each_other() -> None:
    with mpl.rc_context():
        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        canvas = FigureCanvasAgg(figure)
        points = np.array([[0.5 + 0.01 * number, 0.5 + 0.003 * number] for number in range(8)])
        axes.set(xlim=(0, 1), ylim=(0, 1))
        canvas.draw()
        place_labels(axes, canvas.get_renderer(), points, labels=[f"int8_table{n}" for n in range(8)], colors=["k"] * 8)
        canvas.draw()
        boxes = [Text.get_window_extent(text, canvas.get_renderer()) for text in axes.texts]
    texts = [Bbox.intersection(a, b) for a, b in combinations(boxes, 2)]
    assert len(boxes) == 8
    assert not any(both is not None and both.width * both.height > 1 for both in texts)
