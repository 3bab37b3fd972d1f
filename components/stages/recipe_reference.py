"""What trials are held against: the whole teacher on the validation points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save_file

from components.evaluation.contenders import parameters_of
from components.evaluation.measuring import FP32_BYTES
from components.evaluation.scoring import network_scorer
from components.networks.building import read_network
from components.networks.ensemble import member_folders, read_teacher
from components.settings.threads import threads_per_network
from components.stages.requested import Asker, run_request
from components.storage.atomic import new_folder, write_json
from components.tasks.building import open_task

VALUES_FILE = "values.safetensors"
RECORD_FILE = "reference.json"
_BATCH_SIZE = 128


def work(request: dict[str, Any], asker: Asker) -> None:
    """Write ``folder``: the record of the teacher's quality, and its value at each validation point."""
    torch.set_num_threads(threads_per_network())
    artifacts, folder = Path(request["artifacts"]), Path(request["folder"])
    members = [read_network(member) for member in member_folders(artifacts / "teacher")]
    longest = max(member.max_length for member in members)
    task = open_task(request["task"], artifacts / "dataset", longest)
    judged = task.judge(
        network_scorer(read_teacher(artifacts / "teacher")), task.evaluation_batches("validation", _BATCH_SIZE)
    )
    with new_folder(folder) as temporary:
        save_file({"values": judged.values, "users": judged.users}, temporary / VALUES_FILE)
        record = {
            "primary": task.primary.key,
            "title": task.primary.title,
            "quality": judged.figures[task.primary.key],
            "fp32_bytes": parameters_of(members[0]) * FP32_BYTES,
            "points": len(judged.users),
            "users": len(set(judged.users.tolist())),
            "tested": task.wording().tested,
        }
        write_json(temporary / RECORD_FILE, record)


if __name__ == "__main__":
    run_request(work)
