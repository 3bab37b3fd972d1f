"""A checkout in which a data set is prepared and a teacher trained, as far as labelling cares."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from components.data.dataset import read_dataset
from components.networks.building import new_network, write_network
from components.settings.network import CausalTransformerSettings
from components.stages.workspace import Workspace

PARAMS = """
scenarios:
  tiny:
    task: next_item
    soft_labels: {codec: top_k_tail, k: 4, rows_per_part: ROWS}
    trainer: {accelerator: cpu}
"""


def new_checkout(root: Path, prepared_folder: Path, rows_per_part: int = 100) -> Workspace:
    """The scenario ``tiny``, in whose folder ``prepare`` and ``train_teacher`` might have run."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "params.yaml").write_text(PARAMS.replace("ROWS", str(rows_per_part)))
    workspace = Workspace("tiny", root)
    shutil.copytree(prepared_folder, workspace.artifacts / "dataset")
    shape = CausalTransformerSettings(dim=8, blocks=1, heads=2, ffn_dim=8, max_length=6, dropout=0.1)
    folder = workspace.artifacts / "teacher" / "member-0"
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    write_network(folder, new_network(shape, read_dataset(prepared_folder).items))
    (folder.parent / "teacher.json").write_text('{"members": 1}')
    return workspace
