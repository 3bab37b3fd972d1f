"""What DVC's own commands say of a checkout: ``dvc fetch --all-tags`` into an empty cache, and ``dvc status -c``."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from dvc.repo import Repo

from tests.unit.flows.auditing.damages import STORE


def said_by_dvc(root: Path) -> str:
    """Everything that the two commands complain about; of a whole checkout always the same."""
    for name in ("dvc", "dvc_data", "dvc_objects"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    cache = root / ".dvc/cache"
    shutil.rmtree(cache, ignore_errors=True)
    config = root / ".dvc/config.local"
    config.write_text(f"[core]\n    remote = store\n['remote \"store\"']\n    url = {root / STORE / 'dvc'}\n")
    said = []
    for what in ("fetch", "status"):
        repo = Repo(str(root))
        try:
            if what == "fetch":
                said.append(f"fetched {repo.fetch(all_tags=True)}")
            else:
                said.append(json.dumps(repo.status(cloud=True, all_tags=True), sort_keys=True, default=str))
        except Exception as error:  # whatever it raises is a complaint
            said.append(f"{type(error).__name__}")
        finally:
            repo.close()
    return "\n".join(said)
