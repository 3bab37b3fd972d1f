"""The bytes behind ``dvc.lock``: written to DVC's remote, read back from it, and restored from cache or remote.

With ``graph.py`` the only module that touches DVC's internal API. DVC itself takes an overwritten object of a remote
for good, so every file that matters is hashed here again, in pieces, wherever it lies.

The remote is the default one of the checkout's DVC configuration. Where none is configured it is ``dvc/`` of the object
store, so that a team that shares a store shares these bytes too.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from dvc.exceptions import DvcException
from dvc.fs import localfs
from dvc.repo import Repo

from components.errors import IntegrityError, RecstillError, StorageError
from components.storage.atomic import new_file, new_folder
from flows.locked_outputs import (
    FOLDER,
    LOCK,
    entries,
    file_md5,
    listed_files,
    listing,
    listing_md5,
    lock_stages,
    outputs,
    stream_md5,
)
from flows.repository import main_checkout, store_of, without_credentials

_REMOTE = "recstill-store"
_CHUNK = 1 << 20
_BLOCK = 8 << 20
_AT_ONCE = 4

Say = Callable[[str], None]


def push_scenario(root: Path, scenario: str, say: Say, *, again: bool = False) -> int:
    """Write every file of a scenario's outputs to the remote, unless it is there; the listing of a folder last.

    Args:
        root: The checkout or worktree; its outputs have to be as its lock says.
        scenario: A scenario of params.yaml.
        say: Takes lines for whoever watches.
        again: Hash what is there already, and write it again where it is damaged.

    Returns:
        How many files were written.

    Raises:
        IntegrityError: A file here is not what the lock records.
        StorageError: The remote cannot be reached or written.
    """
    files: dict[str, Path] = {}
    listings: dict[str, bytes] = {}
    for output in outputs(root, scenario):
        path = root / output.path
        if output.is_folder:
            found = entries(path)
            files.update({md5: path / name for name, md5 in found.items()})
            listings[output.md5] = listing(found)
        else:
            files[output.md5] = path
    for md5, content in listings.items():
        if listing_md5(content) != md5:
            raise IntegrityError(f"an output of {scenario} is not what {LOCK} records", "Run the scenario again.")
    with opened_remote(root) as remote:

        def send(md5: str) -> bool:
            source = files[md5]
            if _is_there(remote, md5, source.stat().st_size, again):
                return False
            if file_md5(source) != md5:
                raise IntegrityError(f"{source} is not what {LOCK} records", "Run the scenario again.")
            put_object(remote.odb, md5, source)
            return True

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            written = sum(threads.map(send, files))
        # The listing last: a folder whose listing is there is there.
        with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
            for md5, content in listings.items():
                if not _is_there(remote, md5, len(content), again):
                    source = Path(folder) / md5
                    source.write_bytes(content)
                    put_object(remote.odb, md5, source)
                    written += 1
        say(f"{written} of {len(files) + len(listings)} objects written to {remote.address}")
    return written


def verify_pushed(root: Path, scenario: str, revision: str | None = None) -> list[str]:
    """Read every file of a scenario's outputs back from the remote and hash it.

    Memory stays bounded: files are read in pieces, few at once.

    Args:
        root: The checkout or worktree.
        scenario: A scenario of params.yaml.
        revision: Whose ``dvc.lock``; None: the one that lies there.

    Returns:
        One line for each file that is missing or damaged.

    Raises:
        StorageError: The remote cannot be reached.
    """
    recorded = outputs(root, scenario, revision)
    with opened_remote(root) as remote:
        problems, wanted = [], {}
        for output in recorded:
            if not output.is_folder:
                wanted[output.md5] = output.path
                continue
            try:
                listed = _read_listing(remote.odb, output.md5)
            except (FileNotFoundError, ValueError) as error:
                problems.append(f"{output.path}: its listing is {_state(error)} in {remote.address}")
                continue
            wanted.update({md5: f"{output.path}/{name}" for name, md5 in listed.items()})

        def problem(pair: tuple[str, str]) -> str:
            md5, name = pair
            found = _stored_md5(remote.odb, md5)
            if found == md5:
                return ""
            return f"{name}: {'missing' if found is None else 'damaged'} in {remote.address}"

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return problems + [line for line in threads.map(problem, wanted.items()) if line]


def remote_has(root: Path, md5s: Iterable[str]) -> set[str]:
    """Which outputs the remote has: a file under its name, a folder with its listing and everything in that.

    Nothing but listings is hashed.

    Args:
        root: The checkout or worktree.
        md5s: As a lock names outputs.

    Raises:
        StorageError: The remote cannot be reached.
    """
    with opened_remote(root) as remote:

        def there(md5: str) -> bool:
            if not remote.odb.fs.exists(remote.odb.oid_to_path(md5)):
                return False
            if not md5.endswith(FOLDER):
                return True
            try:
                return all(map(there, _read_listing(remote.odb, md5).values()))
            except (FileNotFoundError, ValueError):
                return False

        wanted = list(md5s)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            return {md5 for md5, found in zip(wanted, threads.map(there, wanted), strict=True) if found}


def restore_output(root: Path, revision: str, path: str, destination: Path) -> Path:
    """Bring back an output as a revision's ``dvc.lock`` records it, from DVC's cache or else from the remote.

    Args:
        root: A checkout of the repository.
        revision: A revision of git.
        path: Of the output, such as ``artifacts/movielens/dataset``.
        destination: What it is to be called. One that is there is replaced, once every byte is checked.

    Raises:
        IntegrityError: The lock has no such output, or its bytes are nowhere to be had undamaged.
        StorageError: The remote cannot be reached.
    """
    md5 = next(
        (
            str(out["md5"])
            for stage in lock_stages(root, revision).values()
            for out in stage.get("outs") or ()
            if out["path"] == path
        ),
        None,
    )
    if md5 is None:
        raise IntegrityError(f"{LOCK} of {revision[:12]} has no output {path}", "`git show` tells what it has.")
    return restore_object(root, md5, path, destination)


def restore_object(root: Path, md5: str, path: str, destination: Path) -> Path:
    """Bring back a file or folder by its MD5, from DVC's cache or else from the remote.

    Args:
        root: A checkout of the repository.
        md5: Of its bytes; of a folder that of its listing, with ``.dir`` behind.
        path: What it was called, for messages.
        destination: What it is to be called. One that is there is replaced, once every byte is checked.

    Raises:
        IntegrityError: Its bytes are nowhere to be had undamaged.
        StorageError: The remote cannot be reached.
    """
    if not md5.endswith(FOLDER):
        with new_file(destination) as temporary:
            _fetched(root, md5, path, temporary)
        return destination
    with new_folder(destination) as folder:
        record = folder.with_name(f"{folder.name}.listing")
        try:
            _fetched(root, md5, path, record)
            listed = listed_files(record.read_bytes())
        finally:
            record.unlink(missing_ok=True)
        for name, one in listed.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _fetched(root, one, f"{path}/{name}", folder / name)
    return destination


def shared_cache(main_root: Path, worktree: Path) -> None:
    """Let a worktree use the cache (and the run cache) of the main checkout, and its own settings of this machine.

    Only ``.dvc/config.local`` of the worktree is written, which git ignores.
    """
    with _opened(main_root) as main:
        cache, local = main.cache.local.path, main.config.load_one("local")
    with _opened(worktree) as repo, repo.config.edit("local") as settings:
        settings.update(local)
        settings["cache"] = {**(local.get("cache") or {}), "dir": str(Path(cache).parent.parent)}


def own_cache(worktree: Path) -> None:
    """Let a worktree use a cache (and a run cache) of its own, below itself, whatever the configuration says."""
    with _opened(worktree) as repo, repo.config.edit("local") as settings:
        settings["cache"] = {"dir": str(worktree.resolve() / ".dvc" / "cache")}


class Remote(NamedTuple):
    """DVC's remote, opened.

    Attributes:
        address: For messages; it holds no credential.
        odb: DVC's object database.
    """

    address: str
    odb: Any


def put_object(odb: Any, md5: str, file: Path) -> None:
    """Write a file as an object; its digest is checked by the caller."""
    odb.add([str(file)], localfs, [md5], check_exists=False)


@contextmanager
def opened_remote(root: Path) -> Iterator[Remote]:
    """The default remote, or that of the store; whatever its library raises within the block is one clear error."""
    address = "of this checkout"
    try:
        with _opened(root) as repo:
            odb = repo.cloud.get_remote_odb(command="push")
            address = without_credentials(odb.fs.unstrip_protocol(odb.path))
            # What another process has written or deleted since is not to be missed.
            if invalidate := getattr(odb.fs.fs, "invalidate_cache", None):
                invalidate()
            yield Remote(address, odb)
    except (RecstillError, TypeError, AttributeError, NameError):
        raise
    except DvcException as error:
        raise StorageError(
            f"the DVC remote {address} cannot be used: {without_credentials(str(error))}",
            "`dvc remote list` shows what is configured, `dvc remote default NAME` chooses; with nothing configured "
            "the bytes go to the object store.",
        ) from None
    except Exception as error:
        # Never its text: it may hold a request with its signature.
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else type(error).__name__
        raise StorageError(
            f"the DVC remote {address} cannot be read or written ({reason})",
            "Check that it is there and that the credentials (AWS_* variables) are right, then run again.",
        ) from None


@contextmanager
def _opened(root: Path) -> Iterator[Any]:
    logging.getLogger("dvc").setLevel(logging.ERROR)
    try:
        repo = Repo(str(root), _wait_for_lock=True)
        # A remote that is named and is not there is told by whoever needs it.
        if not repo.config["remote"] and not repo.config["core"].get("remote"):
            repo.close()
            repo = Repo(str(root), _wait_for_lock=True, config=_store_as_remote(root))
    except DvcException as error:
        raise RecstillError(f"DVC cannot open {root}: {error}", "Check the .dvc folder of this checkout.") from None
    try:
        yield repo
    finally:
        repo.close()


@contextmanager
def opened_cache(root: Path) -> Iterator[Remote]:
    """The cache that a checkout or worktree uses, as the configuration has it, opened like a remote."""
    with _opened(root) as repo:
        yield Remote(f"DVC's cache {repo.cache.local.path}", repo.cache.local)


def _store_as_remote(root: Path) -> dict[str, Any]:
    address = store_of(main_checkout(root)).address
    remote = {"url": f"{address.removeprefix('file://')}/dvc"}
    if address.startswith("s3://") and (endpoint := os.environ.get("AWS_ENDPOINT_URL")):
        remote["endpointurl"] = endpoint
    return {"core": {"remote": _REMOTE}, "remote": {_REMOTE: remote}}


def _fetched(root: Path, md5: str, shown: str, target: Path) -> None:
    """Write an object to ``target``: from the cache if it is sound there, else from the remote."""
    with _opened(root) as repo:
        if _copied(repo.cache.local, md5, target):
            return
    with opened_remote(root) as remote:
        if _copied(remote.odb, md5, target):
            return
        address = remote.address
    target.unlink(missing_ok=True)
    raise IntegrityError(
        f"{shown} (MD5 {md5}) is neither in DVC's cache nor in {address}, or is damaged there",
        "Put the bytes back from a copy, or make them anew.",
    )


def _copied(odb: Any, md5: str, target: Path) -> bool:
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with open_object(odb, md5) as source, target.open("wb") as stream:
            while chunk := source.read(_CHUNK):
                digest.update(chunk)
                stream.write(chunk)
    except FileNotFoundError:
        return False
    return digest.hexdigest() == md5.removesuffix(FOLDER)


def _stored_md5(odb: Any, md5: str) -> str | None:
    """MD5 of what is stored under a name; None when nothing is."""
    try:
        with open_object(odb, md5) as stream:
            found = stream_md5(stream)
    except FileNotFoundError:
        return None
    return found + (FOLDER if md5.endswith(FOLDER) else "")


def open_object(odb: Any, md5: str) -> Any:
    """An object of the remote as a stream that reads ahead by a bounded amount."""
    path = odb.oid_to_path(md5)
    # A remote's own file objects read ahead by 50 MB if left to themselves.
    return odb.fs.open(path, "rb") if odb.fs.protocol == "local" else odb.fs.open(path, "rb", block_size=_BLOCK)


def _is_there(remote: Remote, md5: str, size: int, hashed: bool) -> bool:
    """Whether the remote has an object, whole; a wrong one is removed, since it would be taken for the right one."""
    path = remote.odb.oid_to_path(md5)
    try:
        found = int(remote.odb.fs.info(path)["size"])
    except FileNotFoundError:
        return False
    if found == size and (not hashed or _stored_md5(remote.odb, md5) == md5):
        return True
    remote.odb.delete(md5)
    return False


def _read_listing(odb: Any, md5: str) -> dict[str, str]:
    with open_object(odb, md5) as stream:
        content = stream.read()
    if listing_md5(content) != md5:
        raise ValueError("damaged")
    return listed_files(content)


def _state(error: Exception) -> str:
    return "missing" if isinstance(error, FileNotFoundError) else "damaged"
