"""What went wrong with S3, in one message that shows no credential and no signature.

botocore's own messages and the server's answers are never repeated: they may quote a request with its signature.
Only error codes, the bucket's address and the endpoint's host are shown.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import (
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    InvalidRegionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)

from components.errors import StorageError
from components.storage.contract import missing

_CREDENTIALS = "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN (or the profile in AWS_PROFILE)."
# Services refuse requests that are signed more than 15 minutes away from their own time; a smaller gap is a hint.
_TOLERATED_CLOCK_SECONDS = 300


def explained(error: Exception, address: str, endpoint: str, key: str) -> StorageError:
    """The error to show for an exception of boto3, botocore or urllib3.

    Args:
        error: The exception.
        address: ``s3://bucket/prefix``.
        endpoint: URL of the service; only its scheme, host and port are shown.
        key: The object that was asked for, empty when none was.
    """
    if isinstance(error, ClientError):
        return _refused(error, address, key)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return StorageError(f"there are no usable credentials for {address}", _CREDENTIALS)
    if isinstance(error, SSLError):
        return StorageError(
            f"the certificate of {shown_endpoint(endpoint)} is not accepted",
            "Name the authority's certificate in AWS_CA_BUNDLE.",
        )
    if isinstance(error, ConnectionError | HTTPClientError | OSError):
        return StorageError(
            f"{address} cannot be reached at {shown_endpoint(endpoint)} ({type(error).__name__})",
            "Check that the server runs, and AWS_ENDPOINT_URL; then run again.",
        )
    if isinstance(error, InvalidRegionError | ValueError):
        return StorageError(
            f"the settings for {address} are not valid ({type(error).__name__})",
            "Check AWS_ENDPOINT_URL and AWS_DEFAULT_REGION.",
        )
    what = f"{key} in {address}" if key else address
    return StorageError(f"reading or writing {what} failed ({type(error).__name__})", "Run again.")


def code_of(error: ClientError) -> tuple[str, int]:
    """Error code and HTTP status of a refusal; a HEAD has its status as its code."""
    response: Any = error.response
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return str(response.get("Error", {}).get("Code", "")), int(status)


def is_missing(error: ClientError) -> bool:
    """Whether the answer was that there is no such object (or, for a HEAD, no such bucket)."""
    return code_of(error)[0] in ("NoSuchKey", "404", "NotFound")


def is_conflict(error: ClientError) -> bool:
    """Whether a conditional put found an object, or another put of the same key under way."""
    return code_of(error)[1] in (409, 412) and code_of(error)[0] not in ("NoSuchBucket",)


def is_spoiled(error: ClientError) -> bool:
    """Whether the server received other bytes than were sent to it."""
    mismatches = ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch")
    return code_of(error)[0] in mismatches


def shown_endpoint(endpoint: str) -> str:
    """Scheme, host and port of a URL, without a user, a password, a path or a query."""
    parts = urlsplit(endpoint)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}" if host else "its endpoint"


def _refused(error: ClientError, address: str, key: str) -> StorageError:
    code, status = code_of(error)
    if code == "NoSuchBucket":
        return no_bucket(address)
    if is_missing(error):
        return missing(key, address)
    if code == "RequestTimeTooSkewed" or (status == 403 and _clock_gap(error) > _TOLERATED_CLOCK_SECONDS):
        minutes = round(_clock_gap(error) / 60)
        return StorageError(
            f"{address} refuses the request because this machine's clock is off by about {minutes} minutes",
            "Set the clock (for instance with an NTP service) and run again.",
        )
    if status in (401, 403):
        return StorageError(f"{address} refuses the credentials ({code})", _CREDENTIALS)
    return StorageError(f"{address} answers {code or status} for {key or 'the request'}", "Run again later.")


def no_bucket(address: str) -> StorageError:
    """The error of a bucket that is not there."""
    return StorageError(f"the bucket of {address} does not exist", "Create it, or correct RECSTILL_STORE.")


def _clock_gap(error: ClientError) -> float:
    """Seconds between the server's time, by its Date header, and ours."""
    response: Any = error.response
    date = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        return abs((datetime.now(UTC) - parsedate_to_datetime(date)).total_seconds()) if date else 0.0
    except (TypeError, ValueError):
        return 0.0
