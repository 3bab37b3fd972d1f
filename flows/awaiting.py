"""``python -m flows.awaiting URL... -- COMMAND...``: start a command once every address answers.

For processes that are started side by side and need one another. When the object store is one of them, its bucket is
made unless it is there.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from urllib.parse import urlsplit

_SECONDS = 180.0
_PAUSE = 0.2


def answers(url: str) -> bool:
    """Whether something answers there with a good status."""
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except (urllib.error.URLError, OSError, ValueError):
        return False


def wait_for(urls: Sequence[str], seconds: float = _SECONDS) -> list[str]:
    """Wait until every address answers.

    Returns:
        Those that still do not when the time is up.
    """
    left, deadline = list(urls), time.monotonic() + seconds
    while True:
        left = [url for url in left if not answers(url)]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(_PAUSE)


def make_bucket(address: str) -> None:
    """Make the bucket of ``s3://bucket/prefix`` unless it is there."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    settings = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    try:
        boto3.client("s3", config=settings).create_bucket(Bucket=urlsplit(address).netloc)
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise


def main() -> None:
    """Wait, then become the command."""
    words = sys.argv[1:]
    if "--" not in words or not words[words.index("--") + 1 :]:
        sys.exit("usage: python -m flows.awaiting URL... -- COMMAND...")
    urls, command = words[: words.index("--")], words[words.index("--") + 1 :]
    if late := wait_for(urls):
        sys.exit(f"error: not ready within {_SECONDS:.0f} s: {', '.join(late)}")
    if bucket := os.environ.get("STACK_BUCKET"):
        make_bucket(bucket)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
