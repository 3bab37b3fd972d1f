"""All of params.yaml. Stages read single sections; the command line and the tests read it whole."""

from __future__ import annotations

import re

from pydantic import Field, field_validator, model_validator

from components.errors import SettingsError
from components.settings.base import Settings, nearest
from components.settings.distillation import DistillationSettings
from components.settings.evaluation import BudgetSettings, EvaluationSettings, GateSettings
from components.settings.preparing import PrepareSection
from components.settings.pruning import PruningSettings
from components.settings.quantization import QuantizationSettings
from components.settings.retraining import RetrainingSettings
from components.settings.search_space import check_labels, check_space
from components.settings.soft_labels import SoftLabelSettings
from components.settings.source import SequenceSource
from components.settings.sources import SourceSection
from components.settings.student import StudentSettings
from components.settings.teacher import TeacherSettings
from components.settings.training import TrainerSettings
from components.settings.tune import TuneSettings
from components.settings.two_stage import TwoStageSettings


class Scenario(Settings):
    """One task on one source: from raw events to a package."""

    task: str
    """What is predicted: a task of docs/tasks.md."""
    seed: int = Field(ge=0)
    """Seed of every random choice in training and pruning."""
    source: SourceSection
    """Where the events come from."""
    prepare: PrepareSection
    """Filter, order and split."""
    teacher: TeacherSettings
    """The large network."""
    student: StudentSettings
    """The small network."""
    trainer: TrainerSettings
    """Arguments of Lightning's Trainer."""
    soft_labels: SoftLabelSettings
    """What of the teacher is cached."""
    distillation: DistillationSettings
    """The student's loss."""
    pruning: PruningSettings
    """What is cut out of the student."""
    quantization: QuantizationSettings
    """Which quantized variants are made."""
    evaluation: EvaluationSettings
    """How variants are measured."""
    budget: BudgetSettings
    """What the shipped model may cost."""
    gate: GateSettings
    """What the shipped model must be worth."""
    retraining: RetrainingSettings = RetrainingSettings()
    """When it is trained again, and when that replaces what is live."""
    tune: TuneSettings = TuneSettings()
    """Which recipes `recstill tune` tries."""

    @model_validator(mode="after")
    def _what_ships_reads_no_privileged_features(self) -> Scenario:
        if getattr(self.student.network, "privileged", False):
            raise ValueError("student.network.privileged is for the teacher alone: what it reads is in no package")
        return self

    @model_validator(mode="after")
    def _split_by_what_is_known(self) -> Scenario:
        if isinstance(self.source, SequenceSource) and getattr(self.prepare, "split", None) == "temporal":
            raise ValueError("histories without times cannot be split by time: set prepare.split to leave_one_out")
        return self

    @model_validator(mode="after")
    def _fine_tuning_is_for_a_form_that_is_made(self) -> Scenario:
        # Of the scenario, and not of the file alone: every recipe that is tried has to keep it.
        aware, made = self.pruning.quantization_aware, self.quantization
        if aware is None:
            return self
        where = "pruning.quantization_aware"
        if aware.form not in made.variants:
            raise ValueError(f"'{where}.form' is {aware.form}, which is not among quantization.variants: add it")
        for size in ("table_block", "product_width"):
            given, stored = getattr(aware, size), getattr(made, size)
            if given != stored:
                raise ValueError(
                    f"'{where}.{size}' is {given}, and quantization.{size} is {stored}: the weights would get used "
                    "to another form than the one that is stored; make them equal"
                )
        return self


class Params(Settings):
    """params.yaml."""

    scenarios: dict[str, Scenario]
    """Every scenario by its name."""
    two_stage: dict[str, TwoStageSettings] = {}
    """Pairs of scenarios that answer together, by their name."""

    def scenario(self, name: str) -> Scenario:
        """One of them.

        Raises:
            SettingsError: There is none of that name, or it is a pair's.
        """
        if pair := self.two_stage.get(name):
            raise SettingsError(
                f"{name!r} is no scenario: it answers with {pair.retrieval} and {pair.ranking}", "Name one of the two."
            )
        if name not in self.scenarios:
            raise SettingsError(f"unknown scenario {name!r}; {nearest(name, list(self.scenarios))}")
        return self.scenarios[name]

    @field_validator("scenarios")
    @classmethod
    def _at_least_one(cls, value: dict[str, Scenario]) -> dict[str, Scenario]:
        if not value:
            raise ValueError("name at least one scenario")
        return value

    @field_validator("scenarios", "two_stage")
    @classmethod
    def _named_like_a_folder(cls, value: dict[str, Settings]) -> dict[str, Settings]:
        # It is a folder's name and a part of DVC's addresses.
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                raise ValueError(f"{name!r} is not a scenario's name: use letters, digits, '_' and '-'")
        return value

    @model_validator(mode="after")
    def _pairs_are_of_scenarios(self) -> Params:
        for name, pair in self.two_stage.items():
            if name in self.scenarios:
                raise ValueError(f"two_stage.{name} has the name of a scenario, whose artifacts lie there: rename it")
            for role in ("retrieval", "ranking"):
                if (one := getattr(pair, role)) not in self.scenarios:
                    known = nearest(one, list(self.scenarios))
                    raise ValueError(f"two_stage.{name}.{role}: unknown scenario {one!r}; {known}")
        return self

    @model_validator(mode="after")
    def _labels_are_enough_for_the_losses(self) -> Params:
        # Told here, and not by the stage that trains the student, which comes after the teacher's hours.
        for name, scenario in self.scenarios.items():
            check_labels(scenario, f"scenarios.{name}")
            check_space(scenario, f"scenarios.{name}")
        return self
