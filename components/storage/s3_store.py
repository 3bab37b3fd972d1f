"""The object store on S3 or anything that speaks its protocol, through boto3."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, FlexibleChecksumError, HTTPClientError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from components.errors import StorageError
from components.storage.atomic import new_file
from components.storage.contract import StoredObject, checked_key, damaged, is_key, no_leftover, not_as_announced
from components.storage.digests import file_digest
from components.storage.s3_errors import code_of, explained, is_conflict, is_missing, is_spoiled, no_bucket

_CHUNK = 1 << 20
_MULTIPART_FROM = 64 << 20
_ATTEMPTS = 4
_FIRST_WAIT_SECONDS = 0.2
_DIGEST_KEY = "sha256"
# Between key and upload in the name of an unfinished upload; no key has it.
_UPLOAD = "?uploadId="
# What boto3 raises: refusals by the server, failures on the way, and failures while a body is read.
_FAILURES = (ClientError, BotoCoreError, Boto3Error, HTTPError, ResponseParserError)


class S3Store:
    """Objects in a bucket below a prefix; see :class:`~components.storage.contract.ObjectStore`.

    Endpoint, region and credentials come from the standard AWS variables (``AWS_ENDPOINT_URL``,
    ``AWS_ACCESS_KEY_ID``, ...). Each object carries its SHA-256 as metadata. boto3's own checksums let a flipped byte
    pass in ranged reads and multipart objects, so a read is checked against the digest that the caller names, or else
    the one that the object carries.

    Args:
        bucket: Its name.
        prefix: What all keys begin with in the bucket; none when empty.
        read_timeout_seconds: A server that sends nothing for so long is asked again.
    """

    def __init__(self, bucket: str, prefix: str = "", *, read_timeout_seconds: float = 60.0) -> None:
        self._bucket = bucket
        self._prefix = f"{checked_key(prefix)}/" if prefix else ""
        self._read_timeout_seconds = read_timeout_seconds
        self._endpoint = ""
        self._connected = self._connection()

    def __getstate__(self) -> dict[str, Any]:
        """What finds the bucket from another process; endpoint and credentials are in that one's environment."""
        names = ("_bucket", "_prefix", "_read_timeout_seconds")
        return {name: vars(self)[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._endpoint = ""
        self._connected = (0, None)

    @property
    def _client(self) -> Any:
        if self._connected[0] != os.getpid():
            # Two processes cannot share connections: after a fork each needs its own.
            self._connected = self._connection()
        return self._connected[1]

    def _connection(self) -> tuple[int, Any]:
        """The process that it is for, and boto3's client."""
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=5,
            read_timeout=self._read_timeout_seconds,
        )
        try:
            client: Any = boto3.session.Session().client("s3", config=config)
        except (*_FAILURES, ValueError) as error:
            raise self._explained(error) from None
        self._endpoint = str(client.meta.endpoint_url)
        return os.getpid(), client

    @property
    def address(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, content: bytes | Path, sha256: str) -> None:
        """Write in one request, or in parts above 64 MB; the server checks what it received."""
        place = self._place(key)
        if _digest(content) != sha256:
            raise not_as_announced(key)
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        extra = {"ChecksumAlgorithm": "SHA256", "Metadata": {_DIGEST_KEY: sha256}}
        config = TransferConfig(
            multipart_threshold=_MULTIPART_FROM, multipart_chunksize=_MULTIPART_FROM // 4, max_concurrency=4
        )

        def send() -> None:
            with _opened(content) as body:
                if size < _MULTIPART_FROM:
                    self._client.put_object(**place, Body=body, **_seal(sha256))
                else:
                    self._client.upload_fileobj(body, **place, ExtraArgs=extra, Config=config)

        with self._explaining(key):
            _sent_whole(send)

    def put_if_absent(self, key: str, content: bytes, sha256: str) -> bool:
        """Write with ``If-None-Match: *``; a refusal after a reply was lost may be of one's own write."""
        if _digest(content) != sha256:
            raise not_as_announced(key)
        place = self._place(key)
        sent_before = False
        for attempt in range(_ATTEMPTS):
            try:
                _sent_whole(lambda: self._client.put_object(**place, Body=content, IfNoneMatch="*", **_seal(sha256)))
                return True
            except ClientError as error:
                if not is_conflict(error):
                    raise self._explained(error, key) from None
                # botocore has sent the same request before: the object that is in the way may be this one.
                sent_before = sent_before or bool(error.response["ResponseMetadata"].get("RetryAttempts"))
            except _FAILURES as error:
                if not _may_have_arrived(error):
                    raise self._explained(error, key) from None
                sent_before = True
            found = self._stored_digest(key)
            if found is not None:
                return sent_before and found == sha256
            # Neither written nor in the way: a put of somebody else failed, or the object was just deleted.
            time.sleep(_FIRST_WAIT_SECONDS * 2**attempt)
        raise StorageError(f"{self.address} could not decide who writes {key}", "Run again.")

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Read whole; a body that is cut short or damaged is read again a few times."""
        buffer = io.BytesIO()
        self._read(key, buffer, sha256)
        return buffer.getvalue()

    def get_to_file(self, key: str, path: Path, sha256: str) -> None:
        """Read to a temporary file, check, rename."""
        with new_file(path) as temporary, temporary.open("wb") as stream:
            self._read(key, stream, sha256)

    def check(self, key: str, sha256: str) -> None:
        """Read to nowhere, and again a few times if it is cut short or damaged."""
        self._read(key, _Nowhere(), sha256)

    def size(self, key: str) -> int | None:
        """Bytes by a HEAD request."""
        head = self._head(key)
        return None if head is None else int(head["ContentLength"])

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Two listings, since one has no digest; an entry that they do not agree on is asked for by itself."""
        with self._explaining():
            one, other = self._listed(prefix), self._listed(prefix)
        for key in sorted(one.keys() | other.keys()):
            entry = one.get(key)
            if entry is None or entry != other.get(key):
                entry = self._listed_singly(key)
            if entry is not None:
                yield entry

    def delete(self, key: str) -> None:
        """Remove the object."""
        with self._explaining(key):
            self._client.delete_object(**self._place(key))

    def leftovers(self, prefix: str) -> Iterator[StoredObject]:
        """Page through the uploads in parts that were begun and neither completed nor given up."""
        with self._explaining():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            for page in pages:
                for entry in page.get("Uploads", []):
                    key = entry["Key"].removeprefix(self._prefix)
                    yield StoredObject(f"{key}{_UPLOAD}{entry['UploadId']}", 0, entry["Initiated"].timestamp())

    def discard(self, leftover: StoredObject) -> None:
        """Give up an upload in parts."""
        key, separator, upload = leftover.key.partition(_UPLOAD)
        if not separator:
            raise no_leftover(leftover.key)
        with self._explaining(key):
            try:
                self._client.abort_multipart_upload(**self._place(key), UploadId=upload)
            except ClientError as error:
                if code_of(error)[0] not in ("NoSuchUpload", "404", "NotFound"):
                    raise

    def local_file(self, key: str) -> Path | None:
        """None: the objects are elsewhere."""
        checked_key(key)
        return None

    def _read(self, key: str, target: BinaryIO | _Nowhere, sha256: str | None) -> None:
        """Fill ``target`` with the object's content, checked."""
        for attempt in range(_ATTEMPTS):
            last = attempt == _ATTEMPTS - 1
            digest = hashlib.sha256()
            target.seek(0)
            target.truncate()
            with self._explaining(key):
                try:
                    answer = self._client.get_object(**self._place(key))
                    body, expected = answer["Body"], sha256 or answer.get("Metadata", {}).get(_DIGEST_KEY)
                except ClientError as error:
                    if is_missing(error):
                        self._require_bucket()
                    raise
                # boto3 retries requests but not the reading of their bodies.
                try:
                    for chunk in body.iter_chunks(_CHUNK):
                        digest.update(chunk)
                        target.write(chunk)
                    whole = True
                except FlexibleChecksumError:
                    whole = False
                except _FAILURES:
                    if last:
                        raise
                    whole = False
            if whole and digest.hexdigest() == (expected or digest.hexdigest()):
                return
            if last:
                raise damaged(key, self.address)
            time.sleep(_FIRST_WAIT_SECONDS * 2**attempt)

    def _listed(self, prefix: str) -> dict[str, StoredObject]:
        """What the pages of a listing say, by key; a page that cannot be read is asked for again."""
        pages = self._client.get_paginator("list_objects_v2")
        for attempt in range(_ATTEMPTS):
            try:
                found = {}
                for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                    for entry in page.get("Contents", []):
                        key = entry["Key"].removeprefix(self._prefix)
                        found[key] = StoredObject(key, int(entry["Size"]), entry["LastModified"].timestamp())
                return found
            except (ResponseParserError, KeyError, ValueError):
                time.sleep(_FIRST_WAIT_SECONDS * 2**attempt)
        raise StorageError(f"{self.address} answers with listings that are damaged", "Run again.")

    def _listed_singly(self, key: str) -> StoredObject | None:
        """The entry of one object, None when there is none."""
        head = self._head(key) if is_key(key) else None
        if head is None:
            return None
        return StoredObject(key, int(head["ContentLength"]), head["LastModified"].timestamp())

    def _head(self, key: str) -> Any:
        with self._explaining(key):
            try:
                return self._client.head_object(**self._place(key))
            except ClientError as error:
                if not is_missing(error):
                    raise
                self._require_bucket()
                return None

    def _stored_digest(self, key: str) -> str | None:
        head = self._head(key)
        return None if head is None else str(head.get("Metadata", {}).get(_DIGEST_KEY, ""))

    def _require_bucket(self) -> None:
        """Tell a missing bucket from a missing object, which look alike in a HEAD and on some servers in a GET."""
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except ClientError as error:
            if is_missing(error):
                raise no_bucket(self.address) from None
            # Credentials that may not list the bucket may still read and write its objects.

    def _place(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + checked_key(key)}

    @contextmanager
    def _explaining(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            raise self._explained(error, key) from None

    def _explained(self, error: Exception, key: str = "") -> StorageError:
        return explained(error, self.address, self._endpoint, key)


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def truncate(self, size: int | None = None) -> int:
        return 0

    def write(self, content: Any) -> int:
        return len(content)


def _sent_whole(send: Callable[[], object]) -> None:
    """Send again what did not arrive as it was sent."""
    for attempt in range(_ATTEMPTS):
        try:
            send()
            return
        except ClientError as error:
            if not is_spoiled(error) or attempt == _ATTEMPTS - 1:
                raise
        time.sleep(_FIRST_WAIT_SECONDS * 2**attempt)


def _may_have_arrived(error: Exception) -> bool:
    """Whether a request that failed on the way can have reached the server."""
    return isinstance(error, HTTPError | HTTPClientError)


def _seal(sha256: str) -> dict[str, Any]:
    """The digest twice: as a checksum that the server compares with what it received, and as metadata."""
    checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
    return {"ChecksumSHA256": checksum, "Metadata": {_DIGEST_KEY: sha256}}


def _digest(content: bytes | Path) -> str:
    return hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else file_digest(content)


@contextmanager
def _opened(content: bytes | Path) -> Iterator[BinaryIO]:
    if isinstance(content, bytes):
        yield io.BytesIO(content)
    else:
        with content.open("rb") as stream:
            yield stream
