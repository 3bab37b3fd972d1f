"""Training of the members of an ensemble: side by side where there is room, one after the other elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from components.errors import RecstillError, TrainingError
from components.networks.building import read_network, write_network
from components.networks.contract import PredictionNetwork
from components.settings.least_squares import LeastSquaresSettings
from components.settings.teacher import TeacherSettings
from components.settings.threads import cores, members_at_once, threads_per_network
from components.settings.training import TrainerSettings
from components.storage.atomic import new_folder
from components.tasks.building import open_task
from components.training.fitting import FitResult, fit, initial_network
from components.training.least_squares import fit_least_squares
from components.training.warm_start import start_from

if TYPE_CHECKING:
    from components.soft_labels.reader import SoftLabelReader

_TRAINED = "trained"


@dataclass(frozen=True)
class TeacherTraining:
    """All that the members of a teacher are trained with; a child process gets it as it is.

    Attributes:
        dataset: Folder of the prepared data set.
        task: Name of the task.
        settings: Shape, optimization and number of members.
        trainer: Arguments of Lightning's Trainer.
        seed: Of the teacher; the members' seeds are made from it.
        scratch: Folder for what an interrupted training goes on from; the caller deletes it in the end.
        scenario: Named in errors.
        earlier: Folder of the teacher to start from; None: start anew.
        generation: Which generation of the teacher this is, from 1.
        labels: What the generation before expects, of which its members learn as ``settings.distillation`` says; None
            for the first.
    """

    dataset: Path
    task: str
    settings: TeacherSettings
    trainer: TrainerSettings
    seed: int
    scratch: Path
    scenario: str
    earlier: Path | None = None
    generation: int = 1
    labels: SoftLabelReader | None = None

    def name(self, number: int) -> str:
        """What a member is called while it is trained."""
        member = f"member-{number}"
        return member if self.settings.generations == 1 else f"generation-{self.generation}-{member}"


class TrainedMember(NamedTuple):
    """A member with its best weights, and how its training went."""

    network: PredictionNetwork
    result: FitResult


def train_members(training: TeacherTraining) -> list[TrainedMember]:
    """Train every member. How many are trained at once changes nothing in their weights.

    Args:
        training: What to train.

    Raises:
        RecstillError: Whatever the training of a member raises; the others are ended.
        KeyboardInterrupt: Ctrl-C; the members are ended, and what they left in ``scratch`` stays.
    """
    members = training.settings.members
    threads = threads_per_network()
    parallel = side_by_side(members, training.trainer, threads)
    if parallel < 2:
        return [_train_member(training, number, threads, plain=False) for number in range(members)]
    results = _in_processes(training, threads, parallel)
    return [
        TrainedMember(read_network(_folder(training, number) / _TRAINED), result)
        for number, result in enumerate(results)
    ]


def member_seed(seed: int, number: int, generation: int = 1) -> int:
    """The seed of a member, unrelated to that of any other member, of its own teacher or of another seed's.

    Those of the first generation are the same however many generations follow.
    """
    words = [seed, number] if generation == 1 else [seed, number, generation]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def _train_member(training: TeacherTraining, number: int, threads: int, *, plain: bool) -> TrainedMember:
    settings = training.settings
    task = open_task(training.task, training.dataset, settings.network.max_length)
    seed = member_seed(training.seed, number, training.generation)
    network = initial_network(settings.network, task.outcomes, seed, task.sizes)
    if training.earlier is not None and (training.earlier / f"member-{number}").is_dir():
        start_from(network, training.earlier, number, task.outcome_ids)
    name = training.name(number)
    if isinstance(settings.optimization, LeastSquaresSettings):
        return TrainedMember(
            network, fit_least_squares(network, task, settings.optimization, name=name, threads=threads)
        )
    result = fit(
        network,
        task,
        settings.optimization,
        training.trainer,
        seed,
        labels=training.labels,
        distillation=None if training.labels is None else settings.distillation,
        name=name,
        scratch=_folder(training, number) / "state",
        scenario=training.scenario,
        threads=threads,
        plain=plain,
    )
    return TrainedMember(network, result)


def _folder(training: TeacherTraining, number: int) -> Path:
    return training.scratch / f"member-{number}"


def side_by_side(members: int, trainer: TrainerSettings, threads: int) -> int:
    """How many members are trained at the same time.

    Args:
        members: Of the teacher.
        trainer: Where Lightning itself starts processes, for several devices, it is one.
        threads: Of each network.
    """
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    # On processors "auto" is one device, on a GPU as many as there are.
    one = trainer.devices in ((1, "1", "auto") if on_cpu else (1, "1")) or (
        isinstance(trainer.devices, list) and len(trainer.devices) == 1
    )
    if not one or trainer.num_nodes > 1:
        return 1
    return min(members, members_at_once(max(1, cores() // threads) if on_cpu else 1))


def _in_processes(training: TeacherTraining, threads: int, parallel: int) -> list[FitResult]:
    context = multiprocessing.get_context("spawn")
    waiting = list(range(training.settings.members))
    running: dict[Connection, tuple[int, BaseProcess]] = {}
    results: dict[int, FitResult] = {}
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                ours, theirs = context.Pipe(duplex=False)
                number = waiting.pop(0)
                process: BaseProcess = context.Process(
                    target=_child, args=(training, number, threads, theirs), daemon=True
                )
                process.start()
                theirs.close()
                running[ours] = (number, process)
            for connection in wait(list(running)):
                assert isinstance(connection, Connection)
                finished, child = running.pop(connection)
                results[finished] = _received(connection, training.name(finished), child)
    finally:
        _end([process for _, process in running.values()])
    return [results[number] for number in sorted(results)]


def _received(connection: Connection, name: str, process: BaseProcess) -> FitResult:
    try:
        outcome = connection.recv()
    except EOFError:
        process.join()
        raise TrainingError(
            f"the process that trained {name} ended with status {process.exitcode}",
            "When the system ended it for want of memory, lower optimization.batch_size; then run again: "
            "training goes on from the last finished epoch.",
        ) from None
    process.join()
    if isinstance(outcome, RecstillError):
        raise outcome
    if isinstance(outcome, str):
        raise RuntimeError(f"{name}:\n{outcome}")
    assert isinstance(outcome, FitResult)
    return outcome


def _end(processes: Sequence[BaseProcess]) -> None:
    # Their files appear whole or not at all, so nothing is gained by waiting for a graceful end.
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


def _child(training: TeacherTraining, number: int, threads: int, connection: Connection) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    try:
        member = _train_member(training, number, threads, plain=True)
        with new_folder(_folder(training, number) / _TRAINED) as folder:
            write_network(folder, member.network)
        connection.send(member.result)
    except KeyboardInterrupt:
        # The parent was interrupted as well, and says so.
        os._exit(130)
    except RecstillError as error:
        connection.send(error)
    # A defect: the parent shows where it is.
    except Exception:
        connection.send(traceback.format_exc())
    finally:
        with suppress(OSError):
            connection.close()


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)
