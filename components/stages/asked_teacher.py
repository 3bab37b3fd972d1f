"""A teacher asked as its package is: the same requests and answers, the scores from the network that is too large."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from components.networks.ensemble import read_teacher
from components.serving.asking import AskedModel
from components.serving.package_folder import SIGNATURE, PackageFolder
from components.tasks.building import answering_of, open_task


class AskedTeacher(AskedModel):
    """A scenario's teacher.

    Args:
        artifacts: ``artifacts/<scenario>``, whose package says how it is asked.

    Raises:
        DataError: A file is missing.
        IntegrityError: A file is damaged.
    """

    def __init__(self, artifacts: Path) -> None:
        package = PackageFolder(artifacts / "package")
        name = str(package.record["task"])
        self._network = read_teacher(artifacts / "teacher").eval()
        self._task = open_task(name, artifacts / "dataset", self._network.max_length)
        signature = json.loads(package.read(SIGNATURE)) | {"max_length": self._task.max_length}
        self.answering = answering_of(name)(package.read, signature)
        self.bytes = int(package.record["teacher"]["bytes"])

    def scores(self, feed: dict[str, np.ndarray]) -> np.ndarray:
        """See :class:`AskedModel`."""
        with torch.inference_mode():
            return self._network(*self._task.inputs_of(feed)).numpy()
