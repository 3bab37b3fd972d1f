"""A teacher that starts from the weights of an earlier one, item rows matched by item id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from components.errors import IntegrityError, SettingsError
from components.networks.building import network_of, read_network
from components.networks.contract import PredictionNetwork
from components.networks.ensemble import member_folders, teacher_digest
from components.storage.atomic import read_json
from components.storage.object_store import open_store
from components.training.teacher_store import ITEMS_FILE, fetch_teacher

_OF_VALUES = {"mean", "scale"}
_REMEDY = "Take teacher.warm_start out of params.yaml (retraining.warm_start: false), or keep the teacher's shape."


def earlier_teacher(digest: str, members: int, folder: Path) -> Path:
    """Fetch the teacher to start from out of the store, and check that it is the one that was named.

    Args:
        digest: ``teacher.warm_start``.
        members: Of the teacher that is to be trained.
        folder: Where it goes.

    Raises:
        SettingsError: It has fewer members.
        DataError: The store has no such teacher.
        IntegrityError: It is damaged, or another one.
        StorageError: The store cannot be read.
    """
    fetch_teacher(open_store(), digest, folder)
    if teacher_digest(folder) != digest:
        raise IntegrityError(f"what the store holds as teacher {digest[:12]} is another one", _REMEDY)
    there = len(member_folders(folder))
    if there < members:
        raise SettingsError(
            f"teacher.warm_start names a teacher with fewer members: {there}, and {members} are to be trained",
            _REMEDY,
        )
    return folder


def start_from(network: PredictionNetwork, earlier: Path, number: int, items: Sequence[str]) -> None:
    """Give a new network the weights of an earlier teacher's member; rows of what it did not know stay.

    Args:
        network: Freshly initialised; changed in place.
        earlier: Folder of the earlier teacher.
        number: Which member.
        items: ``(K,)`` ids of the new network's items in the order of its rows.

    Raises:
        SettingsError: The networks differ in more than their items.
        IntegrityError: The earlier one is damaged.
    """
    old = read_network(earlier / f"member-{number}")
    ids = read_json(earlier / ITEMS_FILE)
    if len(ids) != old.outcomes:
        raise IntegrityError(f"{earlier} has {old.outcomes:,} item rows and {len(ids):,} item ids", _REMEDY)
    ours, theirs = _shape(network), _shape(old)
    if ours != theirs:
        differences = ", ".join(
            f"{key} {theirs.get(key)} there and {ours.get(key)} here"
            for key in sorted(ours.keys() | theirs.keys())
            if ours.get(key) != theirs.get(key)
        )
        raise SettingsError(f"teacher.warm_start names a teacher of another shape: {differences}", _REMEDY)
    before, tables = old.state_dict(), _item_tables(network)
    of_items = _matched(items, ids)
    keys, known = network.row_keys, old.row_keys
    with torch.no_grad():
        # Parameters alone: what else is kept with them says what the new data are like.
        for name, parameter in network.named_parameters():
            if name in tables or name in keys:
                rows, sources = of_items if name in tables else _matched(keys[name].tolist(), known[name].tolist())
                parameter[rows] = before[name][sources]
            else:
                parameter.copy_(before[name])


def _matched(ours: Sequence[object], theirs: Sequence[object]) -> tuple[torch.Tensor, torch.Tensor]:
    """Places ``(n,)`` int64 of what is in both, here and there."""
    place = {name: row for row, name in enumerate(theirs)}
    known = [(row, place[name]) for row, name in enumerate(ours) if name in place]
    rows, sources = zip(*known, strict=True) if known else ((), ())
    return torch.tensor(rows, dtype=torch.long), torch.tensor(sources, dtype=torch.long)


def _item_tables(network: PredictionNetwork) -> set[str]:
    """Names of the tensors that have a row an item: those that grow with the catalogue, whatever their length is."""
    record = network.record()
    key = "items" if "items" in record else "outcomes"
    with torch.device("meta"):
        grown = network_of({**record, key: network.outcomes + 1}).state_dict()
    return {name for name, tensor in network.named_parameters() if grown[name].shape != tensor.shape}


def _shape(network: PredictionNetwork) -> dict[str, object]:
    # Outcomes are matched; dropout has no weights; what values are normalised by follows the data.
    free = ("items", "outcomes", "dropout")
    record = {key: value for key, value in network.record().items() if key not in free}
    for key in _OF_VALUES & record.keys():
        record[key] = len(record[key]) if isinstance(record[key], list) else 1
    if network.row_keys:
        # Their rows are matched too.
        record["features"] = "some"
    return record
