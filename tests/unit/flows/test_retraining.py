"""A retraining whose champion changes while it trains."""

from __future__ import annotations

from typing import Any

from flows.retrain import against_what_is_live
from flows.surveying import Survey, champion_and_latest
from tests.unit.flows.test_promoting import Models, made, models  # noqa: F401  # fixtures
from tests.unit.serving.conftest import artifacts, content, package  # noqa: F401  # fixtures


def surveyed(models: Models) -> Survey:  # noqa: F811
    """As `survey` found it, as far as the champion is concerned."""
    rest: dict[str, Any] = dict.fromkeys(("settings", "record"))
    champion, _ = champion_and_latest(models.root, models.store, "tiny")
    return Survey(
        name="tiny",
        checkout=models.root,
        tree=models.root,
        store=models.store,
        commit="",
        changes=(),
        prepared=(),
        rest=(),
        champion=champion,
        key="",
        dataset={},
        source={},
        **rest,
    )


def test_the_gate_compares_with_what_has_gone_live_meanwhile(models: Models) -> None:  # noqa: F811
    found, said = surveyed(models), list[str]()
    assert against_what_is_live(found, said.append) is found and said == []
    models.deploy(1)
    first = against_what_is_live(found, said.append)
    models.deploy(2)
    assert against_what_is_live(first, said.append).champion_version == 2
    assert (found.champion_version, first.champion_version) == (None, 1)
    assert said == [f"meanwhile v{version} is live: the gate compares with that" for version in (1, 2)]
