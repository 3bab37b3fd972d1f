"""What `teacher` may say of its generations."""

from __future__ import annotations

from typing import Any

import pytest

from components.errors import SettingsError
from components.settings.base import validated
from components.settings.reading import read_document
from components.settings.scenario import Params
from components.settings.soft_labels import SoftLabelSettings
from components.settings.teacher import TeacherSettings
from components.training.generations import labels_kept
from tests.stage_modules import ROOT

HINT = {"losses": [{"kind": "cross_entropy", "weight": 0.2}, {"kind": "hint"}]}


def settings(**given: Any) -> TeacherSettings:
    return validated(TeacherSettings, given, "scenarios.shop.teacher")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"generations": 0}, "scenarios.shop.teacher.generations"),
        ({"generations": 9}, "scenarios.shop.teacher.generations"),
        ({"generations": 2, "first_members": 0}, "scenarios.shop.teacher.first_members"),
        ({"generation": 2}, "the nearest known one is 'generations'"),
        ({"generations": 2, "distillation": {"lambda_sof": 1}}, "'scenarios.shop.teacher.distillation.lambda_sof'"),
        ({"first_members": 1}, "first_members: only for a teacher of several generations"),
        ({"first_optimization": {}}, "first_optimization: only for a teacher of several generations"),
        ({"generations": 2, "first_optimization": {"epochs": 3}}, "scenarios.shop.teacher.first_optimization.epochs"),
        ({"distillation": {"lambda_hard": 0.5}, "soft_labels": {}}, "distillation, soft_labels: only for"),
        (
            {"generations": 2, "optimization": {"kind": "alternating_least_squares"}},
            "generations is 2, and optimization.kind alternating_least_squares learns from no soft labels",
        ),
    ],
)
def test_what_cannot_be_is_refused_by_its_key(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings(**given)
    assert words in str(caught.value)


def test_networks_of_each_generation() -> None:
    assert [settings(generations=3, members=4).members_of(number) for number in (1, 2, 3)] == [4, 4, 4]
    some = settings(generations=3, members=4, first_members=2)
    assert [some.members_of(number) for number in (1, 2, 3)] == [2, 2, 4]
    assert settings(members=4).members_of(1) == 4
    assert settings(members=4, first_members=None).members_of(1) == 4


def test_how_each_generation_is_trained() -> None:
    plain = settings(generations=3, optimization={"max_epochs": 5})
    assert [plain.optimization_of(number).max_epochs for number in (1, 2, 3)] == [5, 5, 5]
    longer = settings(generations=3, optimization={"max_epochs": 5}, first_optimization={"max_epochs": 9})
    assert [longer.optimization_of(number).max_epochs for number in (1, 2, 3)] == [9, 5, 5]


def test_labels_suit_the_number_of_outcomes_unless_the_settings_say_which() -> None:
    by_outcomes = {outcomes: labels_kept(settings(generations=2), outcomes).codec for outcomes in (1, 2, 64, 65)}
    assert by_outcomes == {1: "logit", 2: "dense", 64: "dense", 65: "top_k_tail"}
    given = settings(generations=2, soft_labels={"codec": "sampled", "k": 16})
    assert labels_kept(given, 2) == SoftLabelSettings(codec="sampled", k=16)


def test_params_refuse_a_loss_that_the_labels_between_generations_will_not_serve() -> None:
    document = read_document(ROOT)
    teacher = document["scenarios"]["synthetic"]["teacher"]
    teacher |= {"generations": 2, "distillation": HINT, "soft_labels": {"k": 32}}
    with pytest.raises(SettingsError, match=r"'scenarios\.synthetic\.teacher\.distillation\.losses\.1' \(hint\) needs"):
        validated(Params, document, "")
    teacher["soft_labels"]["hidden_states"] = True
    validated(Params, document, "")


def test_params_refuse_a_loss_that_is_not_for_the_networks_of_a_generation() -> None:
    document = read_document(ROOT)
    teacher = document["scenarios"]["citeulike"]["teacher"]
    losses = [{"kind": "cross_entropy"}, {"kind": "correlation"}]
    teacher.pop("optimization")
    teacher |= {"network": {"kind": "two_tower"}, "generations": 2, "distillation": {"losses": losses}}
    with pytest.raises(SettingsError, match=r"'scenarios\.citeulike\.teacher\.distillation' has the loss correlation"):
        validated(Params, document, "")
    losses[1]["kind"] = "divergence"
    validated(Params, document, "")
