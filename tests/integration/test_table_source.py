"""Interactions are read from a real S3 server."""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from components.data.ingesting import Ingested, ingest
from components.data.sources import open_source
from components.errors import DataError, StorageError
from components.settings.source import TableSource

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = pl.DataFrame({"user": ["a", "b", "a", "c"], "item": ["1", "1", "2", "3"], "timestamp": [5, 6, 7, 8]})


def ingested(path: str, root: Path) -> Ingested:
    settings = TableSource(kind="table", path=path)
    return ingest(open_source(settings, root), settings, NOW)


@pytest.fixture
def bucket(s3_environment, tmp_path: Path) -> str:
    """Two tables below ``log/``, and others beside them that are none of them."""
    name = s3_environment.new_bucket()
    client = s3_environment.client()
    ROWS[:2].write_parquet(tmp_path / "a.parquet")
    objects = {
        "log/day=1/a.parquet": (tmp_path / "a.parquet").read_bytes(),
        "log/day=2/b.csv": ROWS[2:].write_csv().encode(),
        "log/_SUCCESS": b"",
        "log-of-others/c.csv": b"user,item,timestamp\nx,y,9\n",
    }
    for key, body in objects.items():
        client.put_object(Bucket=name, Key=key, Body=body)
    return name


@pytest.mark.parametrize("ending", ["", "/"])
def test_a_prefix_gives_the_events_that_the_same_files_give(bucket: str, tmp_path: Path, ending: str) -> None:
    ROWS.write_csv(tmp_path / "local.csv")
    found = ingested(f"s3://{bucket}/log{ending}", tmp_path)
    assert found.record["digest"] == ingested("local.csv", tmp_path).record["digest"]
    assert [file["name"] for file in found.record["files"]] == [
        f"s3://{bucket}/log/day=1/a.parquet",
        f"s3://{bucket}/log/day=2/b.csv",
    ]


def test_one_object_is_a_source(bucket: str, tmp_path: Path) -> None:
    assert ingested(f"s3://{bucket}/log/day=2/b.csv", tmp_path).events["user"].to_list() == ["a", "c"]


def test_a_prefix_without_tables_is_refused_by_name(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"s3://{bucket}/nothing holds no Parquet or CSV file"):
        ingested(f"s3://{bucket}/nothing", tmp_path)


def test_a_bucket_that_is_not_there_is_refused(s3_environment, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no-such-bucket"):
        ingested("s3://no-such-bucket/log", tmp_path)


def test_wrong_credentials_are_refused_and_not_shown(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-of-somebody")
    with pytest.raises(StorageError) as caught:
        ingested(f"s3://{bucket}/log", tmp_path)
    assert "wrong-secret" not in str(caught.value)
