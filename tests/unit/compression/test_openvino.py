"""The form for batches. What needs the extra ``openvino`` runs where it is installed."""

import json
import sys
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from components.compression.export import model_bytes
from components.compression.openvino_form import write_openvino
from components.compression.openvino_runtime import GRAPH, compiled, compiled_folder, library
from components.compression.variants import reference_scores
from components.data.dataset import PreparedDataset
from components.errors import IntegrityError, RecstillError
from components.storage.digests import file_digest
from components.tasks.building import task_of
from tests.unit.compression.shaken import LENGTH, SHAPES, exported_model, feed, inputs_of, shaken_network

installed = pytest.mark.skipif(find_spec("openvino") is None or find_spec("nncf") is None, reason="needs the extra")


@pytest.mark.parametrize("name", ["openvino", "nncf"])
def test_without_the_extra_it_is_told_which_one_is_missing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecstillError, match=rf"{name} is not installed: .* the extra `openvino`\n .*pip install"):
        library(name)


@installed
def test_scores_are_nearly_those_of_torch_and_do_not_hang_on_neighbours(
    prepared: PreparedDataset, tmp_path: Path
) -> None:
    task = task_of("next_item", prepared, 8)
    network = shaken_network(prepared.items, max_length=8, dim=32)
    feeds = task.calibration(64, seed=0)
    overlap = write_openvino(tmp_path, network, feeds, task=task, from_digest="d")
    assert overlap > 0.9
    record = json.loads((tmp_path / "openvino.json").read_text())
    assert record["from_digest"] == "d"
    assert {name: entry["sha256"] for name, entry in record["files"].items()} == {
        name: file_digest(tmp_path / name) for name in ("model.xml", "model.bin")
    }
    run = compiled_folder(tmp_path)
    whole = np.concatenate([run(feed).copy() for feed in feeds])
    expected = reference_scores(network, feeds, task.inputs_of)
    assert np.abs(whole - expected).mean() < 0.05 * expected.std()
    for row in range(0, len(feeds[0]["length"]), 7):
        alone = run({name: values[row : row + 1] for name, values in feeds[0].items()})
        np.testing.assert_allclose(alone[0], whole[row], rtol=0, atol=1e-4)

    again = tmp_path / "again"
    again.mkdir()
    write_openvino(again, network, feeds, task=task, from_digest="d")
    for name in ("model.bin", "model.xml"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes(), name


@installed
@pytest.mark.parametrize("shape", SHAPES)
def test_in_fp32_scores_are_those_of_the_network_for_every_padding_and_batch(shape: str, tmp_path: Path) -> None:
    openvino, network = library("openvino"), shaken_network(**SHAPES[shape])
    graph = openvino.Core().read_model(model_bytes(exported_model(**SHAPES[shape])))
    openvino.save_model(graph, tmp_path / GRAPH, compress_to_fp16=False)
    run = compiled_folder(tmp_path)
    # These weights magnify: torch in float32 is itself 8e-6 from float64. So the bound is of the largest score.
    for batch, width in product((1, 2, 64), (1, 5, LENGTH)):
        for length in (width, width // 2, 0, None):
            given = feed(batch, width, length)
            expected = reference_scores(network, [given], inputs_of)
            np.testing.assert_allclose(run(given), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@installed
def test_a_damaged_graph_is_refused() -> None:
    with pytest.raises(IntegrityError, match="OpenVINO cannot load the model"):
        compiled(b"<net", b"")
