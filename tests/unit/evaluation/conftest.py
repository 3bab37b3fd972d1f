from pathlib import Path

import pytest

from components.data.dataset import PreparedDataset
from components.stages.evaluate import work
from components.stages.workspace import Workspace
from tests.unit.evaluation.tiny_artifacts import make_artifacts

PARAMS = """
scenarios:
  tiny:
    task: next_item
    evaluation: {bootstrap_samples: 200, latency_requests: 12, throughput_batches: 2}
    budget: {max_bytes_ratio: 100.0}
    gate: {min_retention: 0.001}
"""


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory, prepared_folder: Path, prepared: PreparedDataset) -> Path:
    """Everything that `evaluate` reads, below a checkout with a params.yaml."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "params.yaml").write_text(PARAMS)
    make_artifacts(root / "artifacts" / "tiny", prepared_folder, prepared.items)
    return root / "artifacts" / "tiny"


@pytest.fixture(scope="session")
def report(artifacts: Path) -> Path:
    """The report that the stage writes of them."""
    work(Workspace("tiny", artifacts.parents[1]))
    return artifacts / "report"
