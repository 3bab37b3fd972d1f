"""What ``dvc.lock`` records of a scenario, and whether the files that lie here are that.

DVC's own record of what it has hashed is not asked: every file is hashed again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from components.errors import IntegrityError, RecstillError
from components.provenance.stage_run import FOLDER, listing, listing_md5
from components.settings.reading import PARAMS_FILE, read_document
from flows.repository import git

LOCK = "dvc.lock"
_CHUNK = 1 << 20
_ABSENT = object()


class Output(NamedTuple):
    """One output that ``dvc.lock`` records.

    Attributes:
        path: Of the file or folder, from the checkout's root.
        md5: Of its bytes; of a folder, that of its listing with ``.dir`` behind.
    """

    path: str
    md5: str

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return self.md5.endswith(FOLDER)


def outputs(root: Path, scenario: str, revision: str | None = None) -> list[Output]:
    """What ``dvc.lock`` records of a scenario, in the order of the lock.

    Args:
        root: The checkout.
        scenario: A scenario of params.yaml.
        revision: A revision of git; None: the file as it lies there.

    Raises:
        IntegrityError: There is no lock, it is damaged, or it records nothing of that scenario.
    """
    found = [
        Output(str(out["path"]), str(out["md5"]))
        for address, stage in lock_stages(root, revision).items()
        if address.partition("@")[2] == scenario
        for out in stage.get("outs") or ()
    ]
    if not found:
        raise IntegrityError(f"{LOCK} records no run of {scenario!r}", f"`recstill run {scenario}` makes one.")
    return found


def lock_stages(root: Path, revision: str | None = None) -> dict[str, Any]:
    """The stages of ``dvc.lock``, as it lies there or as a revision has it.

    Raises:
        IntegrityError: There is none, or it is damaged.
    """
    where = f"{root / LOCK}" if revision is None else f"{LOCK} of {revision[:12]}"
    try:
        text = (root / LOCK).read_text("utf-8") if revision is None else git(root, "show", f"{revision}:./{LOCK}")
    except (OSError, UnicodeDecodeError, RecstillError):
        raise IntegrityError(f"there is no readable {where}", "Run the scenario first: `recstill run`.") from None
    try:
        stages = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data()["stages"]
        return {str(address): dict(stage) for address, stage in stages.items()}
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError):
        raise IntegrityError(f"{where} is damaged", "Take it from git again, or run the scenario again.") from None


def file_md5(path: Path) -> str:
    """MD5 of a file, read in pieces: what DVC names it by."""
    with path.open("rb") as stream:
        return stream_md5(stream)


def workspace_problems(root: Path, scenario: str) -> list[str]:
    """What of a scenario's outputs is not as ``dvc.lock`` records it; one line each, none when all is well."""
    problems = []
    for output in outputs(root, scenario):
        path = root / output.path
        if not path.exists():
            problems.append(f"{output.path} is missing")
        elif output.is_folder != path.is_dir():
            problems.append(f"{output.path} is not a {'folder' if output.is_folder else 'file'}")
        elif (listing_md5(listing(entries(path))) if output.is_folder else file_md5(path)) != output.md5:
            problems.append(f"{output.path} is not what {LOCK} records")
    return problems


def lock_problems(root: Path, scenario: str) -> list[str]:
    """Where ``dvc.lock`` is not of the code and parameters that lie here: it would tell a wrong origin."""
    document, problems = read_document(root), set()
    for address, stage in lock_stages(root).items():
        if address.partition("@")[2] != scenario:
            continue
        for dependency in stage.get("deps") or ():
            path = root / dependency["path"]
            if path.is_file() and "md5" in dependency and file_md5(path) != dependency["md5"]:
                problems.add(f"{dependency['path']} is not the file that {LOCK} records")
        for key, value in ((stage.get("params") or {}).get(PARAMS_FILE) or {}).items():
            if _at(document, key) != value:
                problems.add(f"{PARAMS_FILE} has another {key} than {LOCK} records")
    return sorted(problems)


def _at(document: Any, key: str) -> Any:
    for part in key.split("."):
        document = document.get(part, _ABSENT) if isinstance(document, dict) else _ABSENT
    return document


def entries(folder: Path) -> dict[str, str]:
    """MD5 of every file of a folder, by its name below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_md5(path) for path in files}


def listed_files(content: bytes) -> dict[str, str]:
    """The files of a folder by its listing: their MD5s by name.

    Raises:
        IntegrityError: It names a file outside of the folder.
    """
    listed = {str(entry["relpath"]): str(entry["md5"]) for entry in json.loads(content)}
    for name in listed:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise IntegrityError(f"the listing of a folder names {name!r}, which lies outside of it")
    return listed


def stream_md5(stream: Any) -> str:
    """MD5 of what a stream still has, read in pieces."""
    digest = hashlib.md5(usedforsecurity=False)
    pieces: Iterable[bytes] = iter(lambda: stream.read(_CHUNK), b"")
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()
