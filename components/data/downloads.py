"""Files of public data sets, fetched once and checked by their digest at every use."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from components.errors import DataError, IntegrityError, StorageError
from components.storage.atomic import clear_disk_errors
from components.storage.digests import file_digest

DOWNLOADS_VARIABLE = "RECSTILL_DOWNLOADS"
"""Environment variable with the folder that keeps downloaded files."""

RETRIES = 3
"""Attempts after a failed one, where there is no other place to turn to."""
_TIMEOUTS = (5, 30)  # Seconds to connect, and between two pieces of the body.
_CHUNK = 1 << 18

console = Console(markup=False, highlight=False, soft_wrap=True)


def downloads_folder() -> Path:
    """Where downloaded files are kept: ``RECSTILL_DOWNLOADS``, else the user's cache folder."""
    return Path(os.environ.get(DOWNLOADS_VARIABLE) or pooch.os_cache("recstill"))


def kept_file(name: str, sha256: str) -> Path | None:
    """A file that was fetched before, or put there by hand; None when it is missing or damaged (which is said)."""
    path = downloads_folder() / name
    if not path.is_file():
        return None
    found = file_digest(path)
    if found == sha256:
        return path
    console.print(
        f"{path} is damaged or cut short ({path.stat().st_size:,} bytes, SHA-256 {found}, expected {sha256}): "
        "it is not used"
    )
    return None


def fetch(address: str, name: str, sha256: str, retries: int = RETRIES) -> Path:
    """Bring the file at ``address`` into the folder of downloads; one that is there and whole is left as it is.

    Args:
        address: ``http`` or ``https`` address.
        name: Name in the folder of downloads.
        sha256: Expected SHA-256.
        retries: Further attempts after a failed one, with growing waits.

    Raises:
        DataError: The address cannot be reached or refuses.
        IntegrityError: What arrived is not the expected file, at every attempt.
        StorageError: The file cannot be written.
    """
    folder = _writable_folder()
    registry = pooch.create(
        path=folder, base_url="", registry={name: f"sha256:{sha256}"}, urls={name: address}, retry_if_failed=retries
    )
    pooch.get_logger().setLevel("ERROR")  # It would repeat in other words what is said here.
    attempt = _Attempts(name, sha256, retries + 1)
    by_hand = f"Run again later, or fetch the file by hand and put it here: {folder / name}"
    try:
        with clear_disk_errors(folder / name):
            return Path(registry.fetch(name, downloader=attempt))
    except requests.RequestException as error:
        raise DataError(f"{address} cannot be fetched: {_short(error)}", by_hand) from None
    except ValueError:
        raise IntegrityError(
            f"{address} did not give the expected file: {attempt.received}, expected SHA-256 {sha256}", by_hand
        ) from None


def fetch_wheel(distribution: str, version: str, name: str, sha256: str) -> Path:
    """Bring a wheel into the folder of downloads, from the package index that pip is set up for.

    Nothing of the wheel is installed or run.

    Args:
        distribution: Name of the package.
        version: Its version.
        name: File name of the wheel.
        sha256: Expected SHA-256.

    Raises:
        DataError: pip cannot get it; the message ends with pip's own words.
        IntegrityError: It is not the expected file.
        StorageError: The file cannot be written.
    """
    folder = _writable_folder()
    by_hand = f"Run again later, or fetch {name} by hand and put it here: {folder / name}"
    with clear_disk_errors(folder / name), tempfile.TemporaryDirectory(prefix=".", dir=folder) as temporary:
        options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--dest", temporary, f"{distribution}=={version}"],
            capture_output=True,
            text=True,
            check=False,
        )
        wheel = Path(temporary) / name
        if done.returncode or not wheel.is_file():
            words = done.stderr.strip().splitlines()[-1:] or [f"no file {name}"]
            raise DataError(f"pip cannot download {distribution}=={version}: {words[0]}", by_hand)
        if (found := file_digest(wheel)) != sha256:
            raise IntegrityError(f"{name} is not the expected file: SHA-256 {found}, expected {sha256}", by_hand)
        return wheel.replace(folder / name)


def _writable_folder() -> Path:
    folder = downloads_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"the folder of downloads, {folder}, cannot be made: {error.strerror}",
            f"Set {DOWNLOADS_VARIABLE} to a folder that can be written.",
        ) from None
    return folder


class _Attempts:
    """A downloader for pooch that says what it does, and remembers what arrived."""

    def __init__(self, name: str, sha256: str, attempts: int) -> None:
        self._name, self._sha256, self._attempts, self._count = name, sha256, attempts, 0
        self.received = "nothing arrived"

    def __call__(self, url: str, output_file: str, registry: Any) -> None:
        self._count += 1
        again = f" (attempt {self._count} of {self._attempts})" if self._count > 1 else ""
        console.print(f"fetching {url}{again}")
        with _Bar(self._name) as bar:
            download = pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, timeout=_TIMEOUTS)
            download(url, output_file, registry)
        path = Path(output_file)
        self.received = f"received {path.stat().st_size:,} bytes with SHA-256 {file_digest(path)}"


class _Bar:
    """What pooch calls while it downloads, shown as a bar with the time left."""

    total = 0

    def __init__(self, name: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=console
        )
        self._task = self._progress.add_task(name, total=None)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def update(self, count: int) -> None:
        """``count`` more bytes have arrived. The bar appears with the first of them: where nothing comes, none does."""
        self._progress.start()
        self._progress.update(self._task, total=self.total or None, advance=count)

    def reset(self) -> None:
        """Back to zero: pooch does this before it reports the whole size at the end."""
        self._progress.reset(self._task)

    def close(self) -> None:
        """Nothing more comes."""


def _short(error: requests.RequestException) -> str:
    """The innermost reason, without the chain of wrappers around it."""
    reason: Any = error
    while getattr(reason, "reason", None) is not None and not isinstance(reason.reason, str):
        reason = reason.reason
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "reason", None) or inner)
