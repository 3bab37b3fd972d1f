"""The space of recipes of a scenario: what is tried by default for each kind of network, and what the scenario says.

A **recipe** is a value for each parameter of the space, by dotted names below the scenario. Whatever the teacher and
its soft labels depend on is no part of it: all trials learn from one cache.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from components.errors import SettingsError
from components.settings.base import nearest, validated
from components.settings.distillation import DistillationSettings, check_cache, check_head
from components.settings.losses import OVER_ALL_OUTCOMES
from components.settings.network import (
    CausalTransformerSettings,
    ConvolutionSettings,
    CrossNetworkSettings,
    NetworkSettings,
    PerceptronSettings,
)
from components.settings.soft_labels import SoftLabelSettings
from components.settings.text_network import BagOfNgramsSettings
from components.settings.top_n_network import MatrixFactorizationSettings, TwoTowerSettings
from components.settings.tune import Choices, Range, Searched

if TYPE_CHECKING:
    from components.settings.scenario import Scenario

SECTIONS = ("student", "distillation", "pruning", "quantization")
"""The sections of a scenario that a recipe is of."""
_FIXED = {"quantization.variants": "every trial makes all variants, since one training gives them all"}
_SHARE = "pruning.multiply_adds_share"
_DIMS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
_LAYERS = (8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def space_of(scenario: Scenario) -> dict[str, Searched]:
    """What each parameter may be: the defaults, overruled by the scenario's ``tune.space``."""
    space: dict[str, Searched | None] = {} if scenario.tune.only else dict(default_space(scenario))
    for key, searched in scenario.tune.space.items():
        # A part of a section and the whole of it cannot both be drawn: what the scenario says counts.
        for other in [other for other in space if _overlap(other, key)]:
            del space[other]
        if key == _SHARE and searched is not None:
            _leave_out_ratios(space)
        space[key] = searched
    return {key: searched for key, searched in space.items() if searched is not None}


def default_space(scenario: Scenario) -> dict[str, Searched]:
    """What is tried of a scenario that says nothing itself: sizes around the student's, losses, pruning, rates."""
    space: dict[str, Searched] = {}
    network, teacher = scenario.student.network, scenario.teacher.network
    if isinstance(network, CausalTransformerSettings):
        largest = teacher.dim if isinstance(teacher, CausalTransformerSettings) else 2 * network.dim
        _choose(space, "student.network.dim", _dims(network.dim, largest, network.heads))
        _choose(space, "student.network.blocks", [1, 2, network.blocks])
        layers = [size for size in _LAYERS if network.ffn_dim / 2 <= size <= 2 * network.ffn_dim]
        _choose(space, "student.network.ffn_dim", [*layers, network.ffn_dim])
        _choose(space, "pruning.ffn_ratio", [0.0, 0.25, 0.5, 0.75, scenario.pruning.ffn_ratio])
        if network.heads > 1:
            _choose(space, "pruning.heads_ratio", [0.0, 0.5, scenario.pruning.heads_ratio])
    elif isinstance(network, PerceptronSettings):
        widths = [_scaled(network.hidden, factor) for factor in (0.25, 0.5, 1.0, 2.0)]
        space["student.network.hidden"] = Choices(choices=tuple(widths[place] for place in _first_places(widths)))
        _choose(space, "pruning.ffn_ratio", [0.0, 0.25, 0.5, 0.75, scenario.pruning.ffn_ratio])
    elif isinstance(network, ConvolutionSettings):
        widths = [_scaled(network.channels, factor) for factor in (0.25, 0.5, 1.0, 2.0)]
        space["student.network.channels"] = Choices(choices=tuple(widths[place] for place in _first_places(widths)))
        _choose(space, "pruning.channels_ratio", [0.0, 0.25, 0.5, 0.75, scenario.pruning.channels_ratio])
    elif isinstance(network, CrossNetworkSettings):
        largest = teacher.dim if isinstance(teacher, CrossNetworkSettings) else 2 * network.dim
        _choose(space, "student.network.dim", _dims(network.dim, largest, network.heads))
        if network.hidden:
            widths = [_scaled(network.hidden, factor) for factor in (0.5, 1.0, 2.0)]
            space["student.network.hidden"] = Choices(choices=tuple(widths[place] for place in _first_places(widths)))
        _choose(space, "pruning.ffn_ratio", [0.0, 0.25, 0.5, 0.75, scenario.pruning.ffn_ratio])
    elif isinstance(network, BagOfNgramsSettings):
        _choose(space, "student.network.dim", _dims(network.dim, 2 * network.dim, 1))
        _choose(space, "pruning.width_ratio", [0.0, 0.25, 0.5, 0.75, scenario.pruning.width_ratio])
    elif isinstance(network, MatrixFactorizationSettings | TwoTowerSettings):
        _choose(space, "student.network.dim", _dims(network.dim, max(getattr(teacher, "dim", 0), network.dim), 1))
        # A tower has channels to cut; a factorization has its width.
        part = "ffn_ratio" if isinstance(network, TwoTowerSettings) else "width_ratio"
        _choose(space, f"pruning.{part}", [0.0, 0.25, 0.5, value_at(scenario, f"pruning.{part}")])
    if (share := scenario.pruning.multiply_adds_share) is not None:
        _leave_out_ratios(space)
        # None below: a share that a smaller network cannot be cut to fails, and failures in a row end a search.
        _choose(space, _SHARE, [share, round((1 + share) / 2, 6)])
    _choose(space, "student.network.dropout", [0.0, 0.1, 0.2, network.dropout])
    rate = scenario.student.optimization.learning_rate
    space["student.optimization.learning_rate"] = Range(low=rate / 2, high=rate * 2, log=True)
    space["distillation"] = Choices(choices=tuple(_losses(scenario)))
    return space


def check_space(scenario: Scenario, where: str) -> None:
    """Refuse a ``tune.space`` that names what is no parameter of a recipe, or a value that it cannot have.

    Args:
        scenario: Whose.
        where: Its dotted key, named in errors.

    Raises:
        SettingsError: Names the key of the space, and what is wrong about it.
    """
    named = list(scenario.tune.space)
    for place, (key, searched) in enumerate(scenario.tune.space.items()):
        own = f"params.yaml: '{where}.tune.space' names {key!r}"
        if key.partition(".")[0] not in SECTIONS:
            raise SettingsError(
                f"{own}, which is no part of a recipe; {nearest(key.partition('.')[0], list(SECTIONS))}",
                "All trials learn from the soft labels of one teacher, on one data set: only what follows is tried.",
            )
        if key in _FIXED:
            raise SettingsError(f"{own}: {_FIXED[key]}", "Take it out of the space.")
        if other := next((other for other in named[:place] if _overlap(other, key)), None):
            raise SettingsError(f"{own} and {other!r}, and one is a part of the other", "Name one of them.")
        if searched is None:  # it stays what it is, which the scenario itself was checked for
            value_at(scenario, key)
            continue
        for candidate in searched.candidates():
            try:
                with_recipe(scenario, {key: candidate}, where)
            except SettingsError as error:
                raise SettingsError(f"{own} as {candidate!r}: {error.message.removeprefix('params.yaml: ')}") from None
    if scenario.tune.only and not space_of(scenario):
        raise SettingsError(f"params.yaml: '{where}.tune' leaves nothing to try", "Name parameters under `space`.")


def check_forms(scenario: Scenario, where: str) -> None:
    """Refuse a form that cannot be tried: the bytes and times of a recipe are measured before it is trained.

    Raises:
        SettingsError: One of ``quantization.variants`` searches an index.
    """
    if "int8_index" in scenario.quantization.variants:
        raise SettingsError(
            f"params.yaml: '{where}.quantization.variants' has int8_index, and how far an index has to be searched "
            "shows only with trained vectors: recipes cannot be compared in it",
            "Take it out while recipes are tried, and put it back for the recipe that is chosen.",
        )


def with_recipe(scenario: Scenario, recipe: Mapping[str, Any], where: str = "scenarios.*") -> Scenario:
    """The scenario with the values of a recipe.

    Args:
        scenario: Left as it is.
        recipe: Values by dotted names.
        where: The scenario's dotted key, named in errors.

    Raises:
        SettingsError: A parameter is unknown, or the values do not go together.
    """
    document = scenario.model_dump(mode="json", exclude_unset=True, exclude={"tune"})
    for key, value in recipe.items():
        set_value(document, key, copy.deepcopy(value))
    changed: Scenario = validated(type(scenario), document, where)
    check_labels(changed, where)
    return changed


def check_labels(scenario: Scenario, where: str) -> None:
    """Refuse losses that need of the scenario's cache what it will not hold, or that are not for its networks.

    Raises:
        SettingsError: See :func:`components.settings.distillation.check_cache` and
            :func:`components.settings.distillation.check_head`.
    """
    _check_losses(scenario.student.network, scenario.distillation, scenario.soft_labels.codec, where)
    _check_cache(scenario.distillation, scenario.soft_labels, where)
    teacher, there = scenario.teacher, f"{where}.teacher"
    if teacher.generations > 1:
        # Without a section of its own it keeps what suits the task, which is known when the data are.
        codec = "top_k_tail" if teacher.soft_labels is None else teacher.soft_labels.codec
        _check_losses(teacher.network, teacher.distillation, codec, there)
        if teacher.soft_labels is not None:
            _check_cache(teacher.distillation, teacher.soft_labels, there)


def _check_losses(network: NetworkSettings, distillation: DistillationSettings, codec: str, where: str) -> None:
    if isinstance(network, MatrixFactorizationSettings | TwoTowerSettings):
        terms = distillation.terms(codec)
        if refused := next((term.kind for term in terms if isinstance(term, OVER_ALL_OUTCOMES)), None):
            raise SettingsError(
                f"params.yaml: '{where}.distillation' has the loss {refused}, which is not for networks that read the "
                "items of users: it weighs all outcomes against each other, and those items are left out",
                "Take it out; divergence, relaxed_ranking and rejuvenated_cross_entropy are for them.",
            )
    elif not isinstance(network, CausalTransformerSettings):
        check_head(distillation, where)


def _check_cache(distillation: DistillationSettings, kept: SoftLabelSettings, where: str) -> None:
    codec = {"name": kept.codec, "k": kept.k, "head": kept.head, "hidden_dim": int(kept.hidden_states)}
    check_cache(distillation, codec, where)


def value_at(scenario: Scenario, key: str) -> Any:
    """The scenario's own value of a parameter, as params.yaml would hold it.

    Raises:
        SettingsError: There is no such parameter.
    """
    value: Any = scenario.model_dump(mode="json")
    if "." not in key:  # a whole section: as it is written, without what is left to defaults
        return scenario.model_dump(mode="json", exclude_unset=True).get(key, {})
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            known = list(value) if isinstance(value, dict) else []
            raise SettingsError(f"unknown key {key!r}; {nearest(part, known)}" if known else f"unknown key {key!r}")
        value = value[part]
    return value


def set_value(document: dict[str, Any], key: str, value: Any) -> None:
    """Put a value into nested mappings at its dotted name; sections that are missing are made.

    Raises:
        SettingsError: Something on the way there is no section.
    """
    *parents, last = key.split(".")
    place: Any = document
    for depth, parent in enumerate(parents):
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise SettingsError(f"{'.'.join(parents[: depth + 1])!r} is a value, it has no keys")
    place[last] = value


def _losses(scenario: Scenario) -> Iterator[Any]:
    """Sections ``distillation``, the scenario's own first, and only what its cache holds enough for."""
    own = value_at(scenario, "distillation")
    yield own
    shorts = [
        {"lambda_hard": hard, "lambda_soft": soft, "temperature": temperature}
        for hard, soft, temperature in ((0.2, 0.8, 1.0), (0.5, 0.5, 1.0), (0.2, 0.8, 2.0))
    ]
    both = [{"kind": "cross_entropy", "weight": 0.2}, {"kind": "divergence", "weight": 0.8}]
    lists = [
        [{"kind": "cross_entropy", "weight": 1.0}, {"kind": "correlation"}],
        [{"kind": "cross_entropy", "weight": 0.2}, {"kind": "decoupled_divergence", "weight": 0.8}],
        [{"kind": "cross_entropy", "weight": 0.2}, {"kind": "rejuvenated_cross_entropy", "weight": 0.8}],
        [*both, {"kind": "hint"}],
        [
            {"kind": "binary_cross_entropy", "weight": 0.2},
            {"kind": "logit_squared_error", "weight": 0.8},
        ],
    ]
    terms = _terms(scenario, scenario.distillation)
    seen = [terms]
    for section in [*shorts, *({"losses": losses} for losses in lists)]:
        try:
            changed = with_recipe(scenario, {"distillation": section})
        except SettingsError:
            continue
        terms = _terms(scenario, changed.distillation)
        if terms not in seen:
            seen.append(terms)
            yield section


def _terms(scenario: Scenario, distillation: DistillationSettings) -> list[Any]:
    """The terms themselves, whichever way they are written."""
    return [term.model_dump(mode="json") for term in distillation.terms(scenario.soft_labels.codec)]


def _leave_out_ratios(space: dict[str, Searched | None] | dict[str, Searched]) -> None:
    """Of a share of the multiply-adds and ratios, pruning takes one."""
    for key in [key for key in space if key.startswith("pruning.") and key.endswith("_ratio")]:
        del space[key]


def _choose(space: dict[str, Searched], key: str, values: list[Any]) -> None:
    choices = sorted(set(values))
    if len(choices) > 1:
        space[key] = Choices(choices=tuple(choices))


def _dims(dim: int, largest: int, heads: int) -> list[int]:
    return [dim, *(other for other in _DIMS if dim / 2 <= other <= max(largest, dim) and not other % heads)]


def _scaled(hidden: tuple[int, ...], factor: float) -> list[int]:
    return [max(4, round(width * factor)) for width in hidden]


def _first_places(values: list[list[int]]) -> list[int]:
    return [place for place, value in enumerate(values) if value not in values[:place]]


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")
