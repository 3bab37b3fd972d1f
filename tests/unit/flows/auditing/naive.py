"""A verification that looks at names and sizes, as most do: the negative control."""

from __future__ import annotations

import json
from pathlib import Path

from flows.auditing.findings import Finding
from flows.locked_outputs import lock_stages
from tests.unit.flows.auditing.damages import STORE
from tests.unit.flows.small_checkout import git


def sizes_only(root: Path) -> list[Finding]:
    """What is missing or of another size than recorded: objects that locks name, and files that releases list."""
    findings = []
    for tag in git(root, "tag").splitlines():
        if "@v" not in tag:
            continue
        name, _, version = tag.removesuffix(".0.0").partition("@v")
        try:
            stages = lock_stages(root, tag)
        except Exception:
            continue  # a tag that registers nothing does not occur to it
        for address, stage in stages.items():
            for out in stage["outs"] if address.endswith(f"@{name}") else ():
                md5 = out["md5"]
                size = None if md5.endswith(".dir") else out["size"]
                findings += _look(root, f"dvc/files/md5/{md5[:2]}/{md5[2:]}", md5, size)
        attestation = f"releases/{name}/v{version}/attestation.dsse.json"
        findings += _look(root, attestation, attestation, None)
        for package in (root / STORE / "packages").iterdir():
            record = package / "package.json"
            if not record.is_file():
                findings += _look(root, f"packages/{package.name}/package.json", f"packages/{package.name}", None)
                continue
            try:
                files = json.loads(record.read_bytes())["files"]
            except (ValueError, KeyError):
                continue
            for file, about in files.items():
                key = f"packages/{package.name}/{file}"
                findings += _look(root, key, key, about["bytes"])
    return list(dict.fromkeys(findings))


def _look(root: Path, key: str, name: str, size: int | None) -> list[Finding]:
    path = root / STORE / key
    place = "remote" if key.startswith("dvc/") else "store"
    if not path.is_file():
        return [Finding("missing", place, name, "", name, "it is not there")]  # type: ignore[arg-type]
    if size is not None and path.stat().st_size != size:
        return [Finding("corrupt", place, name, "", name, "its size is another")]  # type: ignore[arg-type]
    return []
