"""A teacher in generations: the networks of each learn from what users did and from the soft labels of the one before.

Furlanello, Lipton, Tschannen, Itti and Anandkumar, "Born-Again Neural Networks", ICML 2018, section 3: a student of the
teacher's own shape becomes better than its teacher, and may be the teacher of the next. Here the members of a
generation count as one teacher, and the last generation is the result.

Each generation has its own folder in the training's scratch folder. A finished one lies there with the identity of its
training and is not trained again; the labels are made of it when the next one needs them.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from components.errors import RecstillError
from components.networks.ensemble import teacher_digest, write_teacher
from components.settings.distillation import check_cache
from components.settings.soft_labels import SoftLabelSettings
from components.settings.teacher import TeacherSettings
from components.soft_labels.codecs.building import codec_for
from components.soft_labels.own_labels import LABELS, MANIFEST, TEACHER, own_labels, settings_for
from components.storage.atomic import new_folder, read_json, write_json
from components.storage.digests import record_digest
from components.tasks.building import open_task
from components.training.callbacks import Epoch, say
from components.training.fitting import FitResult
from components.training.members import TeacherTraining, TrainedMember, train_members
from components.training.resuming import code_record

_RECORD = "generation.json"
_SECONDS_BETWEEN_LOOKS = 0.2


class TrainedTeacher(NamedTuple):
    """The last generation, and how the training of those before it went.

    Attributes:
        members: Of the last generation; their results are named ``member-0``, ``member-1``, ...
        earlier: A tuple of results for each generation before it, ``generation-1-member-0``, ..., the first one first.
    """

    members: list[TrainedMember]
    earlier: list[tuple[FitResult, ...]]


def train_generations(training: TeacherTraining) -> TrainedTeacher:
    """Train one generation after the other; of one alone, its members as :func:`train_members` does.

    Neither an interruption nor how many members are trained at once changes anything in the weights.

    Args:
        training: What to train.

    Raises:
        SettingsError: A loss of ``teacher.distillation`` needs labels that ``teacher.soft_labels`` does not keep.
        RecstillError: Whatever the training of a member or the making of labels raises.
        KeyboardInterrupt: Ctrl-C; what ``scratch`` holds stays.
    """
    settings, count = training.settings, training.settings.generations
    if count == 1:
        return TrainedTeacher(train_members(training), [])
    task = open_task(training.task, training.dataset, settings.network.max_length)
    kept = labels_kept(settings, task.outcomes)
    # Told here, and not after the hours of the first generation; any width stands for that of its hidden states.
    codec = codec_for(kept, task.outcomes, hidden_dim=1).record()
    check_cache(settings.distillation, codec, f"scenarios.{training.scenario}.teacher", task.outcomes)

    earlier: list[tuple[FitResult, ...]] = []
    before: Path | None = None
    for number in range(1, count):
        current = _generation(training, number)
        identity = _identity(current, task.dataset.digest, before, kept)
        results = _finished(current.scratch, identity)
        if results is None:
            shutil.rmtree(current.scratch / TEACHER, ignore_errors=True)
            (current.scratch / MANIFEST).unlink(missing_ok=True)
            members = _trained(current, before, kept)
            results = tuple(member.result for member in members)
            if members[0].result.leads:
                _keep(current.scratch, members, identity)
            else:
                # Lightning runs this program once more for each further device; its first process makes the labels,
                # and when that one ends, so does this one.
                _wait_for(current.scratch / MANIFEST)
        else:
            say(f"generation {number} of {count} is trained already")
        if before is not None:
            shutil.rmtree(before / LABELS, ignore_errors=True)
        earlier.append(results)
        before = current.scratch
    last = _trained(_generation(training, count), before, kept)
    named = [
        member._replace(result=replace(member.result, name=f"member-{place}")) for place, member in enumerate(last)
    ]
    return TrainedTeacher(named, earlier)


def labels_kept(settings: TeacherSettings, outcomes: int) -> SoftLabelSettings:
    """What of a generation's distribution over K outcomes the next one learns from.

    Args:
        settings: They may say it.
        outcomes: K.
    """
    if settings.soft_labels is not None:
        return settings.soft_labels
    return settings_for(outcomes)


def _generation(training: TeacherTraining, number: int) -> TeacherTraining:
    settings = training.settings
    return replace(
        training,
        settings=settings.model_copy(
            update={"members": settings.members_of(number), "optimization": settings.optimization_of(number)}
        ),
        scratch=training.scratch / f"generation-{number}",
        earlier=training.earlier if number == 1 else None,
        generation=number,
    )


def _trained(current: TeacherTraining, before: Path | None, kept: SoftLabelSettings) -> list[TrainedMember]:
    settings, number = current.settings, current.generation
    networks = f"{settings.members} network{'s' if settings.members > 1 else ''}"
    say(f"generation {number} of {settings.generations}: {networks}")
    if before is None:
        return train_members(current)
    with own_labels(before, current.dataset, current.task, kept, current.trainer.accelerator) as labels:
        return train_members(replace(current, labels=labels))


def _identity(current: TeacherTraining, dataset: str, before: Path | None, kept: SoftLabelSettings) -> str:
    """SHA-256 over all that decides the weights of a generation."""
    settings = current.settings
    record: dict[str, Any] = {
        "generation": current.generation,
        "task": current.task,
        "dataset": dataset,
        "seed": current.seed,
        "trainer": current.trainer.model_dump(mode="json"),
        **settings.model_dump(mode="json", include={"network", "optimization", "members"}),
        **code_record(),
    }
    if before is None:
        record["warm_start"] = settings.warm_start
    else:
        record["before"] = teacher_digest(before / TEACHER)
        record["soft_labels"] = kept.model_dump(mode="json")
        record["distillation"] = settings.distillation.model_dump(mode="json")
    return record_digest(record)


def _keep(folder: Path, members: list[TrainedMember], identity: str) -> None:
    with new_folder(folder / TEACHER) as teacher:
        write_teacher(teacher, [member.network for member in members])
        results = [
            {"name": result.name, "best": result.best, "curve": [list(epoch) for epoch in result.curve]}
            for _, result in members
        ]
        write_json(teacher / _RECORD, {"identity": identity, "teacher": teacher_digest(teacher), "results": results})


def _finished(folder: Path, identity: str) -> tuple[FitResult, ...] | None:
    """How the training of the generation in ``folder`` went, if it is there, whole and of this identity."""
    try:
        record = read_json(folder / TEACHER / _RECORD)
        if (record["identity"], record["teacher"]) != (identity, teacher_digest(folder / TEACHER)):
            return None
        return tuple(
            FitResult(result["name"], tuple(Epoch(*epoch) for epoch in result["curve"]), result["best"])
            for result in record["results"]
        )
    except (RecstillError, KeyError, TypeError):
        return None


def _wait_for(path: Path) -> None:
    while not path.is_file():
        time.sleep(_SECONDS_BETWEEN_LOOKS)
