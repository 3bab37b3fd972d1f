"""A feed whose items have topic and format, by the real stages."""

from pathlib import Path
from typing import Any

import torch

from components.compression.rounding import Rounding
from components.networks.building import read_network
from components.settings.quantization import QuantizationAwareSettings
from components.stages import distill, ingest, prepare, prune, soft_labels, train_teacher
from components.storage.atomic import read_json
from tests.unit.tasks.whole_runs import run

EPOCHS = {"max_epochs": 2, "patience": 2, "batch_size": 16, "learning_rate": 0.01}
NETWORK = {"blocks": 1, "heads": 2, "ffn_dim": 16, "max_length": 8, "dropout": 0.0}
SCENARIO: dict[str, Any] = {
    "task": "next_item",
    "seed": 0,
    "source": {
        "kind": "synthetic-feed",
        "path": "synthetic_feed.py",
        "users": 60,
        "items": 48,
        "impressions_per_user": 20,
    },
    "prepare": {
        "min_user_events": 3,
        "item_features": {"topic": {"kind": "vocabulary"}, "format": {"kind": "vocabulary"}},
    },
    "teacher": {"network": {"dim": 32, **NETWORK}, "optimization": EPOCHS},
    "student": {"network": {"dim": 16, **NETWORK}, "optimization": EPOCHS},
    "trainer": {"accelerator": "cpu", "devices": 1},
    "soft_labels": {"codec": "top_k_tail", "k": 8},
    "distillation": {},
    "pruning": {
        "width_ratio": 0.5,
        "optimization": {**EPOCHS, "max_epochs": 1},
        "quantization_aware": {"form": "int4_table4", "table_block": 16},
    },
    "quantization": {"variants": ["fp32", "int4_table4"], "table_block": 16, "calibration_histories": 64},
    "evaluation": {},
    "budget": {},
    "gate": {},
}


def test_every_network_learns_from_them_and_what_is_stored_is_rounded_as_one_table(tmp_path: Path) -> None:
    artifacts = run(tmp_path, "posts", SCENARIO, (ingest, prepare, train_teacher, soft_labels, distill, prune))
    layout = read_json(artifacts / "dataset" / "dataset.json")["item_features"]
    assert layout["single"].keys() == {"topic", "format"}
    for place, dim in (("teacher/member-0", 32), ("student", 16), ("pruned", 8)):
        network = read_network(artifacts / place)
        assert network.record()["features"] == {"rows": layout["rows"], "columns": 2}
        weight, (dataset,) = network.features.weight.detach(), [network.features.rows]
        assert weight.shape == (layout["rows"], dim)
        used = torch.isin(torch.arange(layout["rows"]), dataset)
        assert not used[0] and used.sum() > 8
        # AdamW leaves what has no gradient as it was, but for the decay.
        assert weight[used].abs().mean() > 1.5 * weight[0].abs().mean()
    assert read_json(artifacts / "metrics" / "prune.json")["mask_difference"] < 1e-9
    rounding = Rounding(QuantizationAwareSettings(form="int4_table4", table_block=16))
    network.load_state_dict(rounding(network, True), strict=False)
    assert max(len(row.unique()) for row in network.head.detach().round(decimals=5)) <= 16
