"""The object store: a folder by default, or S3 and what speaks its protocol."""

from __future__ import annotations

import os
from pathlib import Path

from components.errors import StorageError
from components.storage.contract import MissingObjectError, ObjectStore, StoredObject
from components.storage.folder_store import FolderStore

__all__ = ["STORE_VARIABLE", "MissingObjectError", "ObjectStore", "StoredObject", "open_store"]

STORE_VARIABLE = "RECSTILL_STORE"


def open_store(address: str | None = None) -> ObjectStore:
    """The store at ``address``.

    Args:
        address: ``file:///folder`` or ``s3://bucket`` or ``s3://bucket/prefix``. None: the environment variable
            ``RECSTILL_STORE``, and without it the folder ``.recstill/store`` of the working directory.

    Raises:
        StorageError: The address is of no known form.
    """
    address = address or os.environ.get(STORE_VARIABLE) or f"file://{Path.cwd()}/.recstill/store"
    scheme, separator, rest = address.partition("://")
    # Before anything of it is shown: a secret may hold slashes, and the scheme be mistyped.
    if "@" in address and scheme != "file":
        raise StorageError(
            "the store's address holds credentials",
            "Write it as s3://bucket/prefix; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY hold the credentials.",
        )
    if separator and scheme == "file":
        if not rest.startswith("/"):
            raise StorageError(f"store address {address!r} is not absolute", "Write it as file:///path/of/the/folder.")
        return FolderStore(Path(rest))
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise StorageError(f"store address {address!r} names no bucket", "Write it as s3://bucket/prefix.")
        # boto3 takes a while to import and is needed for this kind of address only.
        from components.storage.s3_store import S3Store

        return S3Store(bucket, prefix.strip("/"))
    known = "file:///path/of/the/folder or s3://bucket/prefix"
    shown = f"unknown kind of store {scheme!r}" if separator else f"store address {address!r} has no scheme"
    raise StorageError(shown, f"Set {STORE_VARIABLE} to {known}.")
