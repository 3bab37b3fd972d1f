import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from components.compression import item_index
from components.compression import searched as searched_module
from components.compression.graph import array, store
from components.compression.item_index import ItemIndex
from components.compression.searched import INDEX_KEY, kind_of, recall_of, searched
from components.compression.variants import write_variants
from components.data.dataset import PreparedDataset
from components.errors import CompressionError, SettingsError
from components.settings.base import validated
from components.settings.quantization import QuantizationSettings, SearchSettings
from components.soft_labels import progress
from components.storage.digests import file_digest
from components.tasks.building import task_of
from components.tasks.contract import Task
from tests.unit.compression.shaken import exported_model, feed, shaken_network

MANY = 3000
"""More items than the histories are of: the index is that of a larger catalogue."""


def enlarged() -> onnx.ModelProto:
    """The exported network with another, larger table."""
    model = onnx.ModelProto()
    model.CopyFrom(exported_model())
    table = 0.5 * np.random.default_rng(0).standard_normal((MANY, array(model.graph, "item").shape[1]))
    store(model.graph, "item", table.astype(np.float32))
    return model


@pytest.fixture(scope="module")
def task(prepared: PreparedDataset) -> Task:
    return task_of("next_item", prepared, 12)


def settings(**search: object) -> QuantizationSettings:
    return QuantizationSettings(search=SearchSettings(**search))  # type: ignore[arg-type]


def test_the_variant_is_two_files_that_name_each_other(tmp_path: Path, task: Task, prepared: PreparedDataset) -> None:
    network = shaken_network(prepared.items)
    calibration = task.calibration(32, seed=0)
    ((variant, overlap),) = write_variants(
        tmp_path,
        network,
        ["int8_index"],
        settings(),
        calibration,
        task=task,
        made_from="pruned",
        from_digest="0" * 64,
    )
    model, index = tmp_path / variant.file, tmp_path / variant.index.file
    assert variant.bytes == model.stat().st_size + index.stat().st_size
    assert (variant.sha256, variant.index.sha256) == (file_digest(model), file_digest(index))
    metadata = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    assert metadata == {INDEX_KEY: variant.index.sha256}
    assert (variant.index.kind, variant.index.effort, variant.index.recall_of) == ("exact", 0, 10)
    assert variant.index.recall >= 0.98 and variant.index.histories == task.held_out("validation")
    assert overlap > 0.9
    assert variant.record()["index"]["kind"] == "exact"
    assert ItemIndex.loaded(index.read_bytes(), variant.index.sha256).items == prepared.items


def test_the_least_effort_that_reaches_the_recall_is_set(task: Task) -> None:
    model, calibration = enlarged(), [feed(8, 12)]
    found = searched(model, settings(index="ivf", recall=0.9), calibration, task)
    efforts = found.index.efforts
    assert found.recall >= 0.9 and found.index.effort in efforts[1:-1]
    more = searched(model, settings(index="ivf", recall=0.97), calibration, task)
    assert more.index.effort > found.index.effort and more.recall >= 0.97


def test_a_recall_that_chance_alone_may_have_reached_does_not_count(
    task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = searched(enlarged(), settings(index="ivf", recall=0.9), [feed(8, 12)], task).index
    steps = found.efforts
    lately = iter([0.86, 0.91, 0.95, 0.97])
    monkeypatch.setattr(searched_module, "_shares_found", lambda *_: np.array([1.0, 1.0, 4 * next(lately) - 3.0, 1.0]))
    # Of four histories, of which one finds less, the margin is 1.7 of what is missing: .95 - .085, .97 - .051.
    assert searched_module._set_effort(found, *[[]] * 3, 0.9) == pytest.approx(0.97)
    assert found.effort == steps[3]
    # Nothing gets beyond .91, and the interval goes below .9: the second effort reaches that as well as any.
    monkeypatch.setattr(
        searched_module,
        "_shares_found",
        lambda index, *_: np.array([1.0, 0.79 if index.effort == steps[0] else 0.82]),
    )
    assert searched_module._set_effort(found, *[[]] * 3, 0.9) == pytest.approx(0.91)
    assert found.effort == steps[1]


def test_who_has_seen_every_item_is_answered_as_by_the_exact_search(task: Task) -> None:
    found = searched(enlarged(), settings(index="exact", recall=0.9), [feed(8, 12)], task).index
    queries = np.random.default_rng(0).standard_normal((2, found.dim)).astype(np.float32)
    seen = [np.arange(MANY), np.arange(3)]
    best = [np.arange(0), found.search(queries[1:], [4])[0].items[:1]]
    assert recall_of(found, queries, seen, [best[0], best[0]]) == 1.0
    assert recall_of(found, queries, [seen[0], np.arange(0)], best) == 1.0


def test_a_recall_that_is_not_reached_is_refused_with_the_figures(task: Task) -> None:
    with pytest.raises(CompressionError, match=r"\(ivf, 3,000 items\) finds 0\.9\d+ of the 10 best .* asks for 1\.0"):
        searched(enlarged(), settings(index="ivf", recall=1.0, bits=8), [feed(8, 12)], task)


def test_a_value_takes_as_many_bits_as_the_recall_needs(task: Task) -> None:
    few, many = (searched(enlarged(), settings(index="exact", recall=recall), [], task) for recall in (0.9, 0.995))
    assert (few.bits, many.bits) == (8, 16) and few.recall < many.recall
    assert len(few.index.content()) < 0.6 * len(many.index.content())


def test_items_that_an_answer_leaves_out_count_neither_way() -> None:
    vectors = np.eye(8, dtype=np.float32) * np.arange(8, 0, -1, dtype=np.float32)[:, None]
    index = ItemIndex.built(vectors, "exact")
    query, seen = np.ones((1, 8), np.float32), [np.array([0, 2])]
    assert recall_of(index, query, seen, [np.array([1, 3])]) == 1
    assert recall_of(index, query, seen, [np.array([1, 7])]) == 0.5


def test_the_size_of_the_catalogue_decides_over_the_kind() -> None:
    by_size = SearchSettings(exact_up_to=100, ivf_up_to=200)
    assert [kind_of(by_size, items) for items in (100, 101, 200, 201)] == ["exact", "ivf", "ivf", "hnsw"]
    larger = SearchSettings(exact_up_to=500_000)
    assert [kind_of(larger, items) for items in (500_000, 500_001)] == ["exact", "hnsw"]
    without_lists = SearchSettings(exact_up_to=100, ivf_up_to=100)
    assert [kind_of(without_lists, items) for items in (100, 101)] == ["exact", "hnsw"]
    assert kind_of(SearchSettings(), 1_000_000) == "hnsw"
    assert kind_of(SearchSettings(index="hnsw"), 5) == "hnsw"
    assert kind_of(SearchSettings(index="ivf"), 1_000_000) == "ivf"


def test_sizes_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"search': ivf_up_to \(99\) is below exact_up_to \(100\)"):
        validated(
            QuantizationSettings, {"search": {"exact_up_to": 100, "ivf_up_to": 99}}, "scenarios.shop.quantization"
        )


def test_a_graph_says_how_far_it_is(
    task: Task, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)
    monkeypatch.setattr(item_index, "_ADDED_AT_ONCE", 1000)
    searched(enlarged(), settings(index="ivf", recall=0.9), [feed(8, 12)], task)
    assert not capsys.readouterr().out
    found = searched(enlarged(), settings(index="hnsw"), [feed(8, 12)], task)
    assert (found.index.kind, found.index.items) == ("hnsw", MANY) and found.recall >= 0.98
    assert re.search(r"indexing: 2,000 of 3,000 rows, [\d,]+ rows/s, \d+ s left", capsys.readouterr().out)


def test_a_task_without_a_catalogue_is_refused(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(task), "name", "image")
    with pytest.raises(CompressionError, match="there is nothing to search for"):
        searched(exported_model(), settings(), [feed(8, 12)], task)
