from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, SSLError

from components.errors import StorageError
from components.storage.contract import MissingObjectError
from components.storage.s3_errors import explained

ENDPOINT = "https://someone:passw0rd@s3.example.org:9000/path?X-Amz-Signature=5ecret"


def refusal(code: str, status: int, minutes_ahead: float = 0.0) -> ClientError:
    date = format_datetime(datetime.now(UTC) + timedelta(minutes=minutes_ahead))
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": {"date": date}}
    message = "StringToSign: AWS4-HMAC-SHA256 5ecret"
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, "GetObject")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        # Made when the test runs: an answer holds the time, and collection is minutes before.
        (lambda: refusal("SignatureDoesNotMatch", 403), r"refuses the credentials \(SignatureDoesNotMatch\)"),
        (lambda: refusal("NoSuchBucket", 404), "the bucket of s3://bucket does not exist"),
        (lambda: refusal("SlowDown", 503), "answers SlowDown for a/b"),
        (lambda: SSLError(endpoint_url=ENDPOINT, error="x"), r"certificate of https://s3\.example\.org:9000 "),
        (
            lambda: EndpointConnectionError(endpoint_url=ENDPOINT),
            r"cannot be reached at https://s3\.example\.org:9000 ",
        ),
    ],
)
def test_each_failure_is_one_message_without_a_secret(made: Callable[[], Exception], said: str) -> None:
    with pytest.raises(StorageError, match=said) as caught:
        raise explained(made(), "s3://bucket", ENDPOINT, "a/b")
    assert caught.value.remedy
    for secret in ("passw0rd", "5ecret", "someone"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "403"])
@pytest.mark.parametrize("minutes", [20, -20])
def test_a_clock_that_is_off_is_told_with_the_minutes(code: str, minutes: int) -> None:
    # Made here, not among the parameters: those are made when tests are collected, minutes before they run.
    error = explained(refusal(code, 403, minutes), "s3://bucket", ENDPOINT, "a/b")
    assert "clock is off by about 20 minutes" in str(error)


def test_a_missing_object_is_told_from_every_other_failure() -> None:
    assert isinstance(explained(refusal("NoSuchKey", 404), "s3://bucket", ENDPOINT, "a/b"), MissingObjectError)
    assert not isinstance(explained(refusal("NoSuchBucket", 404), "s3://bucket", ENDPOINT, "a/b"), MissingObjectError)
