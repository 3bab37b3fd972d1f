"""A stage's statement to test with: a folder and a file made of a folder and of two modules."""

from __future__ import annotations

import hashlib
from typing import Any

from components.provenance.stage_statement import FileDigests, StageStatement, of_lock_entry

ADDRESS = "distill@tiny"


def digests_of(content: bytes) -> FileDigests:
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
    return FileDigests(hashlib.sha256(content).hexdigest(), md5, len(content))


FILES = {
    "artifacts/tiny/metrics/distill.json": digests_of(b"{}\n"),
    "artifacts/tiny/student/architecture.json": digests_of(b'{"dim": 4}\n'),
    "artifacts/tiny/student/weights.safetensors": digests_of(b"weights"),
}


def lock_entry(**changes: Any) -> dict[str, Any]:
    return {
        "cmd": "python -m components.stages.distill tiny",
        "deps": [
            {"path": "components/errors.py", "hash": "md5", "md5": "0" * 32, "size": 10},
            {"path": "components/stages/distill.py", "hash": "md5", "md5": "1" * 32, "size": 20},
            {"path": "artifacts/tiny/dataset", "hash": "md5", "md5": f"{'2' * 32}.dir", "size": 30, "nfiles": 2},
            {"path": "artifacts/tiny/soft_labels/manifest.json", "hash": "md5", "md5": "3" * 32, "size": 40},
        ],
        "params": {"params.yaml": {"scenarios.tiny.seed": 0, "scenarios.tiny.distillation": {"temperature": 1.5}}},
        "outs": [
            {"path": "artifacts/tiny/metrics/distill.json", "hash": "md5", "md5": digests_of(b"{}\n").md5, "size": 3},
            {"path": "artifacts/tiny/student", "hash": "md5", "md5": f"{'4' * 32}.dir", "size": 18, "nfiles": 2},
        ],
        **changes,
    }


def statement(**changes: Any) -> StageStatement:
    facts = {
        **of_lock_entry(ADDRESS, lock_entry()),
        "subjects": FILES,
        "commit": "a" * 40,
        "dirty": False,
        "who": "Tess Ter <tess@example.org>",
        "started": "2026-05-03T10:00:00Z",
        "finished": "2026-05-03T10:00:02Z",
        "attached": "during the run",
        "digests": {"student": "5" * 64},
        "metrics": {"validation_ndcg10": 0.25, "cost": {"seconds": 2.0}},
        "input_sha256": {
            "artifacts/tiny/dataset": "6" * 64,
            "artifacts/tiny/soft_labels/manifest.json": "7" * 64,
        },
        "requirements": "8" * 64,
        "environment": {"python": "3.11.9", "torch": "2.13.0"},
        "byproducts": {"soft-labels/id/part-00000.safetensors": "9" * 64},
        **changes,
    }
    return StageStatement(**facts)
