"""What `distillation` may say, and which caches it goes with."""

from __future__ import annotations

from typing import Any

import pytest

from components.errors import SettingsError
from components.settings.base import validated
from components.settings.distillation import DistillationSettings, check_cache
from components.settings.losses import ConstantSchedule, MovingSchedule
from components.settings.reading import read_document
from components.settings.scenario import Params
from components.training.losses.schedules import scheduled_share
from tests.stage_modules import ROOT

HARD = {"kind": "cross_entropy", "weight": 0.2}
LIST = {"name": "top_k_tail", "k": 64}


def settings(**given: Any) -> DistillationSettings:
    return validated(DistillationSettings, given, "scenarios.shop.distillation")


def refusal(**given: Any) -> str:
    with pytest.raises(SettingsError) as caught:
        settings(**given)
    return str(caught.value)


def unmet(loss: dict[str, Any], codec: dict[str, Any]) -> str:
    hard = {"kind": "binary_cross_entropy"} if codec["name"] == "logit" else HARD
    with pytest.raises(SettingsError) as caught:
        check_cache(settings(losses=[hard, loss]), codec, "scenarios.shop")
    return str(caught.value)


def test_the_short_form_is_a_list_of_two() -> None:
    short = settings(lambda_hard=0.3, lambda_soft=0.7, temperature=2.0)
    long = settings(
        losses=[
            {"kind": "cross_entropy", "weight": 0.3},
            {"kind": "divergence", "weight": 0.7, "temperature": 2.0},
        ]
    )
    assert short.terms() == long.terms()
    assert settings().terms() == settings(losses=[HARD, {"kind": "divergence", "weight": 0.8}]).terms()


def test_a_weight_that_only_rises_or_only_falls_teaches() -> None:
    for first, last in ((0, 1), (1, 0)):
        settings(losses=[{**HARD, "schedule": {"kind": "linear", "first": first, "last": last}}])


def test_both_forms_at_once_contradict_each_other() -> None:
    assert "lambda_soft and losses say the same in two ways" in refusal(lambda_soft=0.5, losses=[HARD])


def test_a_misspelt_key_of_a_loss_is_told_the_nearest_one() -> None:
    told = refusal(losses=[HARD, {"kind": "decoupled_divergence", "betta": 2}])
    assert "unknown key 'scenarios.shop.distillation.losses.1.betta'" in told and "'beta'" in told
    told = refusal(losses=[{**HARD, "schedule": {"kind": "linear", "start": 0.1}}])
    assert "unknown key 'scenarios.shop.distillation.losses.0.schedule.start'" in told


def test_an_unknown_kind_is_told_the_known_ones() -> None:
    told = refusal(losses=[{"kind": "hinton"}])
    assert "scenarios.shop.distillation.losses.0" in told and "divergence" in told


@pytest.mark.parametrize(
    "losses",
    [
        [],
        [{"kind": "hint"}, {"kind": "topology"}],
        [{"kind": "divergence", "head": "auxiliary"}],
        [{"kind": "cross_entropy", "weight": 0}],
        [{**HARD, "schedule": {"kind": "linear", "first": 0, "last": 0}}],
        [{**HARD, "schedule": {"kind": "cosine", "first": 0, "last": 0}}, {"kind": "divergence", "weight": 0}],
    ],
)
def test_something_must_teach_the_head_that_is_served(losses: list[dict[str, Any]]) -> None:
    assert "none of the losses teaches the served head" in refusal(losses=losses)


@pytest.mark.parametrize(
    "losses",
    [
        [{"kind": "relaxed_ranking", "interesting": 41}],
        [{"kind": "rejuvenated_cross_entropy", "k": 200}],
        [{**HARD, "schedule": {"kind": "cosine", "begin": 0.6, "end": 0.5}}],
        [{**HARD, "weight": -1}],
        [{"kind": "divergence", "temperature": 0}],
    ],
)
def test_what_cannot_be_is_refused(losses: list[dict[str, Any]]) -> None:
    assert "scenarios.shop.distillation.losses.0" in refusal(losses=losses)


@pytest.mark.parametrize(
    ("loss", "codec", "words", "remedy"),
    [
        ("divergence", {"name": "logit"}, "needs soft labels of codec dense or sampled or", "to top_k_tail"),
        ("decoupled_divergence", {"name": "sampled", "k": 16}, "dense or top_k_tail, and the cache has sampled", ""),
        ("correlation", {"name": "top_k_sampled", "k": 16, "head": 8}, "has top_k_sampled", "to top_k_tail"),
        ("relaxed_ranking", {"name": "sampled", "k": 16}, "dense or top_k_sampled or top_k_tail", ""),
        ("rejuvenated_cross_entropy", {"name": "sampled", "k": 16}, "has sampled", "codec' to top_k_tail"),
        ("sampled_divergence", {"name": "dense"}, "the cache has dense", ""),
        ("logit_squared_error", LIST, "needs soft labels of codec logit, and the cache has top_k_tail", "to logit"),
        ("soft_binary_cross_entropy", LIST, "codec logit", "to logit"),
        ("hint", LIST, "needs the teacher's hidden states", "soft_labels.hidden_states' to true"),
        ("topology", LIST, "needs the teacher's hidden states", "soft_labels.hidden_states' to true"),
        ("relaxed_ranking", {"name": "top_k_tail", "k": 16}, "40 best outcomes, and the cache has 16", "k' to 40"),
        ("relaxed_ranking", {"name": "top_k_sampled", "k": 64, "head": 8}, "has 8", "soft_labels.head' to 40"),
    ],
)
def test_a_cache_that_lacks_something_is_refused_by_key_and_remedy(
    loss: str, codec: dict[str, Any], words: str, remedy: str
) -> None:
    told = unmet({"kind": loss}, codec)
    assert f"'scenarios.shop.distillation.losses.1' ({loss})" in told
    assert words in told and remedy in told


@pytest.mark.parametrize("codec", [{"name": "dense"}, {"name": "top_k_tail", "k": 8}, {"name": "top_k_tail", "k": 64}])
@pytest.mark.parametrize(("loss", "needs"), [("relaxed_ranking", 40), ("rejuvenated_cross_entropy", 20)])
def test_no_list_is_longer_than_there_are_outcomes(loss: str, needs: int, codec: dict[str, Any]) -> None:
    losses = settings(losses=[HARD, {"kind": loss}])
    with pytest.raises(SettingsError, match=rf"(?s)losses\.1' \({loss}\) needs.* {needs} best.*8 in all.*Lower what"):
        check_cache(losses, codec, "scenarios.shop", outcomes=8)
    check_cache(losses, {"name": "dense"}, "scenarios.shop", outcomes=needs)


def test_a_cache_that_has_everything_is_taken_and_a_loss_without_weight_needs_nothing() -> None:
    with_hidden = {**LIST, "hidden_dim": 64}
    kinds = ["divergence", "decoupled_divergence", "correlation", "relaxed_ranking", "hint", "topology"]
    check_cache(settings(losses=[HARD, *({"kind": kind} for kind in kinds)]), with_hidden, "scenarios.shop")
    check_cache(settings(losses=[HARD, {"kind": "hint", "weight": 0}]), LIST, "scenarios.shop")


def test_params_refuse_a_loss_that_the_scenarios_own_cache_will_not_serve() -> None:
    document = read_document(ROOT)
    validated(Params, document, "")
    synthetic = document["scenarios"]["synthetic"]
    synthetic["distillation"] = {"losses": [HARD, {"kind": "hint"}]}
    with pytest.raises(SettingsError, match=r"'scenarios\.synthetic\.distillation\.losses\.1' \(hint\) needs"):
        validated(Params, document, "")
    synthetic["soft_labels"]["hidden_states"] = True
    validated(Params, document, "")
    synthetic["distillation"] = {"losses": [HARD]}
    synthetic["soft_labels"] = {"codec": "logit"}
    with pytest.raises(SettingsError, match=r"losses\.0' \(cross_entropy\) needs soft labels of codec"):
        validated(Params, document, "")


@pytest.mark.parametrize("network", ["perceptron", "convolution", "bag_of_ngrams"])
@pytest.mark.parametrize("loss", ["sampled_cross_entropy", "sampled_divergence"])
def test_params_refuse_a_sample_of_the_outcomes_where_no_table_scores_them(loss: str, network: str) -> None:
    document = read_document(ROOT)
    synthetic = document["scenarios"]["synthetic"]
    synthetic["distillation"] = {"losses": [HARD, {"kind": loss, "weight": 0}]}
    synthetic["student"]["network"] = {"kind": network}
    validated(Params, document, "")
    synthetic["distillation"]["losses"][1]["weight"] = 0.5
    plain = loss.removeprefix("sampled_")
    told = rf"(?s)'scenarios\.synthetic\.distillation\.losses\.1' \({loss}\) scores a sample.*Set it to {plain}, "
    with pytest.raises(SettingsError, match=told):
        validated(Params, document, "")
    synthetic["student"]["network"] = {}
    validated(Params, document, "")


def test_the_short_form_of_a_click_has_binary_terms() -> None:
    short = settings(lambda_hard=0.3, lambda_soft=0.7, temperature=2.0)
    hard, soft = short.terms("logit")
    assert (hard.kind, hard.weight) == ("binary_cross_entropy", 0.3)
    assert (soft.kind, soft.weight, soft.temperature) == ("soft_binary_cross_entropy", 0.7, 2.0)
    check_cache(short, {"name": "logit"}, "scenarios.shop")


@pytest.mark.parametrize(("kind", "quarter"), [("linear", 0.25), ("cosine", 0.1464466)])
def test_a_schedule_stands_still_moves_and_stands_still(kind: str, quarter: float) -> None:
    rising = MovingSchedule(kind=kind, begin=0.2, end=0.6)
    shares = [scheduled_share(rising, done) for done in (0.0, 0.2, 0.3, 0.4, 0.6, 1.0)]
    assert shares == pytest.approx([0, 0, quarter, 0.5, 1, 1])
    falling = MovingSchedule(kind=kind, first=2.0, last=0.5, begin=0.2, end=0.6)
    assert [scheduled_share(falling, done) for done in (0.1, 0.3, 0.9)] == pytest.approx([2, 2 - 1.5 * quarter, 0.5])
    assert scheduled_share(ConstantSchedule(), 0.3) == 1.0
