"""`recstill schedule` and `recstill up`: what a user gets wrong is one clear message, before anything is changed."""

from __future__ import annotations

import inspect
import socket
from datetime import timedelta
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from components.errors import RecstillError
from flows import schedule_cli, stack_cli
from flows.deployments import Plan, _planned
from flows.stack import run
from flows.stack_environment import Stack
from tests.stage_modules import ROOT


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    made = typer.Typer()
    schedule_cli.register(made)
    stack_cli.register(made)
    return made


def refused(app: typer.Typer, *words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert isinstance(result.exception, RecstillError), (result.exception, result.output)
    return str(result.exception)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no scenario is named"),
        (("movielnes",), "unknown scenario 'movielnes'"),
        (("synthetic", "--cron", "every day"), "--cron 'every day' is no cron expression"),
        (("synthetic", "--audit-cron", "61 * * * *"), "--audit-cron '61 * * * *' is no cron expression"),
        (("synthetic", "--every", "soon"), "--every 'soon' is no interval"),
        (("synthetic", "--every", "0h"), "--every '0h' is no interval"),
        (("synthetic", "--every", "99999999999d"), "--every '99999999999d' is no interval"),
        (("synthetic", "--every", "6h", "--cron", "0 3 * * *"), "exclude each other"),
        (("synthetic", "--pool-type", "dcoker"), "unknown type of work pool 'dcoker'"),
        (("--list", "--remove"), "exclude each other"),
        (("synthetic", "--every", "6h"), "PREFECT_API_URL is not set"),
        (("--list",), "PREFECT_API_URL is not set"),
    ],
)
def test_what_is_wrong_is_said(app: typer.Typer, words: tuple[str, ...], said: str) -> None:
    assert said in refused(app, "schedule", *words)


def test_a_server_that_is_down_is_named(app: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # taken, and nobody listens
        port = nobody.getsockname()[1]
        monkeypatch.setenv("PREFECT_API_URL", f"http://someone:secret@127.0.0.1:{port}/api")
        monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
        message = refused(app, "schedule", "--list")
    assert f"127.0.0.1:{port}" in message and "does not answer" in message and "secret" not in message


def test_every_scenario_is_retrained_and_deployed_and_all_are_audited() -> None:
    planned = _planned(Plan(("a", "b"), every=timedelta(hours=6), approve=True))
    assert [(one.flow, one.name) for one in planned] == [
        ("retrain", "a"),
        ("deploy", "a"),
        ("retrain", "b"),
        ("deploy", "b"),
        ("audit", "nightly"),
    ]
    assert planned[0].every == timedelta(hours=6) and planned[0].at_once == "cancel"
    assert planned[1].parameters == {"name": "a", "approval": True} and planned[1].model == "a"


def test_flows_take_what_their_deployments_give() -> None:
    from flows.deployments import _FROM_EVENT

    for one in _planned(Plan(("a",))):
        flow = getattr(import_module(f"flows.{one.flow}"), one.flow)
        given = {**one.parameters, **(_FROM_EVENT if one.model else {})}
        assert set(given) <= set(inspect.signature(flow.fn).parameters), one.flow
        assert flow.name == one.flow


def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/Procfile").write_text((ROOT / "infra/Procfile").read_text())
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        with pytest.raises(RecstillError, match=f"port {taken} of Prefect is taken"):
            run(Stack(tmp_path, "synthetic", taken + 1, taken, taken + 2, "0 3 * * *"), print)
    assert not (tmp_path / ".recstill").exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [("mysql://db/x", "no address of a database"), ("postgresql://me:hidden@127.0.0.1:1/x", "no PostgreSQL answers")],
)
def test_a_database_that_is_not_there_is_named(tmp_path: Path, address: str, said: str) -> None:
    (tmp_path / "infra").mkdir()
    (tmp_path / "infra/Procfile").write_text((ROOT / "infra/Procfile").read_text())
    with pytest.raises(RecstillError, match=said) as caught:
        run(Stack(tmp_path, "synthetic", 50_001, 50_002, 50_003, "0 3 * * *", address), print)
    assert "hidden" not in str(caught.value)
