"""Everything that the report compares, found in a scenario's artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from components.evaluation.benchmark import Runtime
from components.networks.building import read_network
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import member_folders
from components.storage.atomic import read_json
from components.storage.checkpoints import WEIGHTS_FILE, checkpoint_digest
from components.storage.digests import record_digest

Family = Literal["teacher", "teacher_member", "baseline", "student", "pruned", "untrained"]
MEMBER: Literal["teacher_member"] = "teacher_member"
VARIANTS_FILE = "variants.json"
# The stages that make a network of each family, beside those of the teacher that it may learn from.
_STAGES: dict[Family, tuple[str, ...]] = {
    "teacher": ("train_teacher",),
    "teacher_member": ("train_teacher",),
    "baseline": ("train_baseline",),
    "student": ("distill",),
    "pruned": ("distill", "prune"),
    "untrained": (),
}
_TITLES: dict[str, str] = {
    "teacher": "Teacher",
    MEMBER: "One teacher member",
    "baseline": "Student without teacher",
    "student": "Student",
    "pruned": "Pruned student",
}


@dataclass(frozen=True)
class Contender:
    """One line of the report.

    Attributes:
        name: Key in metrics.json, such as ``student`` or ``pruned.int8_table8``.
        title: Name for people.
        family: Which network it is, or is made from.
        runtime: How it is run; None for what needs no network.
        path: The checkpoint's folder, the teacher's folder, or the ONNX file.
        digest: Of the network, or SHA-256 of the ONNX file.
        parameters: Of the network, or of the one that the ONNX file was made from.
        bytes: Of the weights (of all members), or of the ONNX file with the index beside it.
        max_length: Events of a history that it reads.
        stages: The stages whose work it took, beside the teacher's.
        variant: What ``variants.json`` says of an ONNX file.
    """

    name: str
    title: str
    family: Family
    runtime: Runtime | None = None
    path: Path | None = None
    digest: str = ""
    parameters: int | None = None
    bytes: int | None = None
    max_length: int = 0
    stages: tuple[str, ...] = ()
    variant: dict[str, Any] | None = None

    @property
    def shippable(self) -> bool:
        """Is it a file to serve, made from the student? What is made from the teacher is there to compare with."""
        return self.runtime == "onnx" and self.family in ("student", "pruned")


def contenders_of(artifacts: Path, untrained: Mapping[str, str]) -> list[Contender]:
    """Networks, then ONNX variants, then what needs no training; in the order of the pipeline.

    Args:
        artifacts: ``artifacts/<scenario>``.
        untrained: Titles of the task's baselines by name.

    Raises:
        DataError: A stage's output is missing.
        IntegrityError: A network is damaged.
    """
    members = member_folders(artifacts / "teacher")
    networks: list[Contender] = []
    if len(members) > 1:
        networks.append(_teacher(artifacts / "teacher", members))
    networks.append(_checkpoint(MEMBER if networks else "teacher", members[0]))
    students: tuple[Family, ...] = ("baseline", "student", "pruned")
    networks += [_checkpoint(family, artifacts / family) for family in students]
    of_family = {network.family: network for network in networks}
    of_family.setdefault(MEMBER, networks[0])
    counted = [Contender(name, title, "untrained") for name, title in untrained.items()]
    return [*networks, *_variants(artifacts / "quantized", of_family), *counted]


def reference_of(contenders: Sequence[Contender]) -> Contender:
    """One member of the teacher in torch: what bytes and latencies are compared with."""
    named = {contender.name: contender for contender in contenders}
    return named.get(MEMBER) or named["teacher"]


def training_seconds(contender: Contender, costs: dict[str, dict[str, float]], members: int) -> float | None:
    """Seconds that the contender's own stages took; None when there were none or they were not measured.

    Args:
        contender: Whose.
        costs: ``cost`` of each stage's metrics.
        members: Members of the teacher, which share its stage's time.
    """
    if not contender.stages or any(stage not in costs for stage in contender.stages):
        return None
    seconds = sum(costs[stage]["seconds"] for stage in contender.stages)
    return seconds / members if contender.family == MEMBER else seconds


def _teacher(folder: Path, members: list[Path]) -> Contender:
    networks = [read_network(member) for member in members]
    served = [network.folded() for network in networks]
    return Contender(
        name="teacher",
        title=f"{_TITLES['teacher']} ({len(members)} members)",
        family="teacher",
        runtime="teacher",
        path=folder,
        digest=record_digest([checkpoint_digest(member) for member in members]),
        parameters=sum(map(parameters_of, served)),
        bytes=sum(map(_bytes, members, networks, served)),
        max_length=_max_length(networks),
        stages=_STAGES["teacher"],
    )


def _checkpoint(family: Family, folder: Path) -> Contender:
    network = read_network(folder)
    served = network.folded()
    return Contender(
        name=family,
        title=_TITLES[family],
        family=family,
        runtime="network",
        path=folder,
        digest=checkpoint_digest(folder),
        parameters=parameters_of(served),
        bytes=_bytes(folder, network, served),
        max_length=_max_length([network]),
        stages=_STAGES[family],
    )


def _variants(folder: Path, of_family: dict[Family, Contender]) -> list[Contender]:
    order = {"pruned": 0, "student": 1}
    found = []
    for variant in read_json(folder / VARIANTS_FILE)["variants"]:
        source = of_family[variant["made_from"]]
        form = str(variant["name"]).split(".", 1)[-1]
        found.append(
            Contender(
                name=variant["name"],
                title=f"{_TITLES[variant['made_from']]} → {form}",
                family=variant["made_from"],
                runtime="onnx",
                path=folder / variant["file"],
                digest=variant["sha256"],
                parameters=source.parameters,
                bytes=sum((folder / name).stat().st_size for name in _files(variant)),
                max_length=source.max_length,
                stages=source.stages,
                variant=variant,
            )
        )
    return sorted(found, key=lambda variant: (order.get(variant.family, 2), -(variant.bytes or 0), variant.name))


def _files(variant: Mapping[str, Any]) -> list[str]:
    """The file of a variant, and its index where it has one."""
    return [variant["file"], *([variant["index"]["file"]] if variant.get("index") else [])]


def parameters_of(network: PredictionNetwork) -> int:
    """Values in a network; a tied table counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def _bytes(folder: Path, network: PredictionNetwork, served: PredictionNetwork) -> int:
    """Of the weights in ``folder``, without those that are folded into others before anything is served."""
    own, kept = (sum(tensor.nbytes for tensor in each.state_dict().values()) for each in (network, served))
    return (folder / WEIGHTS_FILE).stat().st_size - own + kept


def _max_length(networks: Iterable[PredictionNetwork]) -> int:
    return max(network.max_length for network in networks)
