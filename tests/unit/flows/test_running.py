"""Errors of Prefect's that are a server's silence, and those that are not."""

import subprocess

import httpx
import pytest

from flows.events import ServerError
from flows.running import prefer_quiet_prefect, server_errors

ADDRESS = "http://me:secret@server.example/api"


def test_a_server_that_does_not_answer_is_one_error_with_its_address_and_the_cause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", ADDRESS)
    said = RuntimeError(f"Failed to reach API at {ADDRESS}")
    said.__cause__ = httpx.ConnectError("refused")
    shown = r"server at http://server\.example/api does not answer: refused"
    with pytest.raises(ServerError, match=shown), server_errors():
        raise said


def test_its_own_server_that_is_too_slow_to_start_is_one_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings

    server = SubprocessASGIServer(port=9)
    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", lambda _: subprocess.Popen(["sleep", "60"]))
    with (
        temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 1}),
        pytest.raises(ServerError, match="own server has not started") as said,
        server_errors(),
    ):
        server.start()
    assert "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS" in said.value.remedy


def test_another_error_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="something else"), server_errors():
        raise RuntimeError("something else")


@pytest.mark.parametrize("address", ["http://[::1/api", "localhost:4200/api", "ftp://server/api", "4200"])
def test_what_is_no_address_is_refused_before_prefect_reads_it(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    with pytest.raises(ServerError, match="is no address of a Prefect server"):
        prefer_quiet_prefect()


def test_a_secret_in_a_broken_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://me:secret@[::1/api")
    with pytest.raises(ServerError) as refused:
        prefer_quiet_prefect()
    assert "secret" not in str(refused.value)
