"""Events are posted to the server's API, and its absence is told."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flows.events import REGISTERED, ServerError, emit_registered
from flows.finalizing import Registered
from tests.unit.flows.event_server import EventServer

VERSION = Registered("movielens", 3, "c" * 40, "a" * 64, "2026-11-01T00:00:00+00:00")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[EventServer]:
    one = EventServer()
    monkeypatch.setenv("PREFECT_API_URL", one.address)
    yield one
    one.stop()


def test_a_registration_is_told_with_what_a_deployment_needs_and_told_twice_it_is_one_event(
    server: EventServer,
) -> None:
    assert emit_registered(VERSION) and emit_registered(VERSION)
    one, other = server.received
    assert one["event"] == REGISTERED and one["id"] == other["id"]
    assert one["resource"]["prefect.resource.id"] == "recstill.model.movielens"
    assert one["payload"]["version"] == 3 and one["payload"]["attestation"] == "a" * 64


def test_without_a_server_nothing_is_emitted_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    said: list[str] = []
    assert emit_registered(VERSION, said.append) is False
    assert "PREFECT_API_URL is not set" in said[0]


def test_a_server_that_is_down_or_refuses_is_one_clear_error(server: EventServer) -> None:
    server.status = 404
    with pytest.raises(ServerError, match="status 404"):
        emit_registered(VERSION)
    server.stop()
    with pytest.raises(ServerError, match="does not answer") as failure:
        emit_registered(VERSION)
    assert "what is done is kept" in failure.value.remedy
