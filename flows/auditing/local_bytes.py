"""Bytes that lie on this machine by their MD5: in DVC's cache and in work trees. DVC itself is not asked."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flows.locked_outputs import FOLDER
from flows.repository import main_checkout

_CACHE = re.compile(r"^\[cache\]\s*$(?:\n(?!\[).*)*?\n\s*dir\s*=\s*(.+?)\s*$", re.MULTILINE)
_LARGEST = 8 << 20


class LocalBytes:
    """What can be read without a remote.

    Args:
        root: The checkout.

    Attributes:
        caches: Folders of DVC that hold objects by MD5.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self.caches = [folder for folder in dict.fromkeys(_caches(root)) if folder.is_dir()]
        self._listings: dict[str, bytes] | None = None

    def read(self, md5: str, path: str = "") -> bytes | None:
        """The bytes of a small file, hashed; None when they are not here.

        Args:
            md5: What names them.
            path: Where they may lie in the work tree.
        """
        places = [*(self._object(cache, md5) for cache in self.caches), *([self._root / path] if path else ())]
        for place in places:
            try:
                if place.stat().st_size <= _LARGEST:
                    content = place.read_bytes()
                    if hashlib.md5(content, usedforsecurity=False).hexdigest() == md5.removesuffix(FOLDER):
                        return content
            except OSError:
                continue
        return None

    def document(self, md5: str, path: str = "") -> Any:
        """A JSON document by the MD5 of its bytes; None when it is not here, or is none."""
        content = self.read(md5, path)
        try:
            return None if content is None else json.loads(content)
        except ValueError:
            return None

    def cached(self, md5: str) -> bool:
        """Whether DVC's cache here has an object of that name; its bytes are not hashed."""
        return any(self._object(cache, md5).is_file() for cache in self.caches)

    def members(self, md5: str) -> dict[str, str]:
        """MD5 by name of the files of a folder; empty when its listing is not here."""
        listing = self.document(md5)
        try:
            return {str(one["relpath"]): str(one["md5"]) for one in listing or ()}
        except (KeyError, TypeError):
            return {}

    def folders_with(self, md5: str) -> Iterator[tuple[str, str]]:
        """Folders that have a file of that MD5: MD5 of their listing with ``.dir``, and the file's name in them."""
        if self._listings is None:
            found = (path for cache in self.caches for path in cache.glob(f"??/*{FOLDER}"))
            self._listings = {path.parent.name + path.name: path.read_bytes() for path in found}
        wanted = md5.encode()
        for folder, content in self._listings.items():
            if wanted in content:
                yield from ((folder, name) for name, one in self.members(folder).items() if one == md5)

    @staticmethod
    def _object(cache: Path, md5: str) -> Path:
        return cache / md5[:2] / md5[2:]


def _caches(root: Path) -> Iterable[Path]:
    for checkout in dict.fromkeys((root, main_checkout(root))):
        folder = checkout / ".dvc"
        chosen = "cache"
        for name in ("config", "config.local"):
            try:
                text = (folder / name).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            if found := _CACHE.search(text):
                chosen = found[1]
        yield folder / chosen / "files" / "md5"
