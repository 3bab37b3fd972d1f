from pathlib import Path

import pytest
import torch

from components.errors import DataError
from components.networks.building import new_network, write_network
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import Ensemble, read_teacher, teacher_digest
from components.settings.network import CausalTransformerSettings
from components.storage.atomic import write_json

SETTINGS = CausalTransformerSettings(dim=8, blocks=1, heads=2, ffn_dim=12, max_length=9)
INPUTS = (torch.arange(12).view(2, 6), torch.arange(12))


def members(count: int) -> list[PredictionNetwork]:
    torch.manual_seed(0)
    return [new_network(SETTINGS, 20).eval() for _ in range(count)]


def write_teacher(folder: Path, networks: list[PredictionNetwork]) -> None:
    for number, network in enumerate(networks):
        (folder / f"member-{number}").mkdir(parents=True)
        write_network(folder / f"member-{number}", network)
    write_json(folder / "teacher.json", {"members": len(networks)})


def test_probabilities_are_the_mean_of_the_members() -> None:
    networks = members(3)
    mean = torch.stack([network(*INPUTS).softmax(1) for network in networks]).mean(0)
    torch.testing.assert_close(Ensemble(networks)(*INPUTS).exp(), mean)


def test_scores_stay_finite_where_a_member_is_certain() -> None:
    networks = members(2)
    with torch.no_grad():
        for network in networks:
            network.head.mul_(1e5)
    assert Ensemble(networks)(*INPUTS).isfinite().all()


def test_members_of_different_catalogues_are_refused() -> None:
    with pytest.raises(ValueError, match="same outcomes"):
        Ensemble([new_network(SETTINGS, 20), new_network(SETTINGS, 21)])


def test_a_teacher_is_read_as_its_one_member_or_as_the_ensemble(tmp_path: Path) -> None:
    networks = members(2)
    write_teacher(tmp_path / "one", networks[:1])
    write_teacher(tmp_path / "two", networks)
    assert torch.equal(read_teacher(tmp_path / "one")(*INPUTS), networks[0](*INPUTS))
    assert torch.equal(read_teacher(tmp_path / "two")(*INPUTS), Ensemble(networks)(*INPUTS))


def test_the_digest_changes_with_any_member(tmp_path: Path) -> None:
    networks = members(2)
    write_teacher(tmp_path / "one", networks)
    before = teacher_digest(tmp_path / "one")
    with torch.no_grad():
        networks[1].head[3, 3] += 1e-3
    write_teacher(tmp_path / "other", networks)
    assert teacher_digest(tmp_path / "other") != before
    with pytest.raises(DataError, match=r"teacher\.json"):
        teacher_digest(tmp_path)
