"""The sketch of who is in a data set, made where the bytes are: at the end of a run, at finalizing, or later."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import RecstillError
from components.storage.atomic import read_json
from components.storage.contract import ObjectStore
from flows.auditing.scratch import scratch_folder
from flows.locked_outputs import lock_stages, outputs
from flows.repository import keys_of, store_of

if TYPE_CHECKING:
    from components.data.subject_key import SubjectKey
    from components.provenance.subjects import Sketch

_PEOPLE = ("events.parquet", "rejected.parquet", "dataset")
DURING, AFTERWARDS = "during the run", "afterwards"


def people_outputs(recorded: Iterable[tuple[str, str]]) -> dict[str, str]:
    """MD5 by path of those outputs of one scenario that hold people.

    Args:
        recorded: Path and MD5 of outputs, such as ``artifacts/movielens/events.parquet``.
    """
    return {path: md5 for path, md5 in recorded if path.count("/") == 2 and path.rpartition("/")[2] in _PEOPLE}


def sketch_here(tree: Path, scenario: str, attached: str, store: ObjectStore | None = None) -> Sketch | None:
    """Keep a sketch of the data that lie in a checkout or worktree, unless they have one.

    Args:
        tree: The checkout or worktree; its outputs are as its lock says.
        scenario: Of params.yaml.
        attached: ``during the run`` or ``afterwards``.
        store: Where it is kept; None: the checkout's.

    Returns:
        The sketch that this call has made; None when there is one already, or nobody in the scenario's outputs.

    Raises:
        IntegrityError: A file is damaged.
        SettingsError: The subject key cannot be read.
        StorageError: The store cannot be written.
    """
    from components.data.subject_key import subject_key_made
    from components.provenance.subjects import publish_sketch, sketch_key, sketch_of

    people = people_outputs(outputs(tree, scenario))
    store = store or store_of(tree)
    if not people or store.size(sketch_key(people)) is not None:
        return None
    folder = tree / "artifacts" / scenario
    record = folder / "dataset" / "dataset.json"
    dataset = str(read_json(record).get("digest", "")) if record.is_file() else ""
    key = subject_key_made(keys_of(tree))
    sketch = sketch_of(folder, people, key, scenario=scenario, dataset=dataset, attached=attached)
    return sketch if publish_sketch(store, sketch) else None


def sketch_afterwards(
    root: Path, store: ObjectStore, scenario: str, people: Mapping[str, str], key: SubjectKey
) -> Sketch | None:
    """Keep a sketch of data whose bytes are in DVC's cache or remote, and that have none.

    Args:
        root: The checkout.
        store: Where it is kept.
        scenario: Whose data.
        people: What :func:`people_outputs` gave.
        key: Names people.

    Returns:
        The sketch; None when a file is nowhere to be had.

    Raises:
        StorageError: DVC's remote or the store cannot be used.
    """
    from components.provenance.subjects import publish_sketch, sketch_of

    with scratch_folder(root) as folder:
        if not fetch_people(root, people, folder):
            return None
        record = folder / "dataset" / "dataset.json"
        dataset = str(json.loads(record.read_text("utf-8")).get("digest", "")) if record.is_file() else ""
        sketch = sketch_of(folder, people, key, scenario=scenario, dataset=dataset, attached=AFTERWARDS)
    publish_sketch(store, sketch)
    return sketch


def fetch_people(root: Path, people: Mapping[str, str], folder: Path) -> bool:
    """Bring the files that hold people into a folder, named as in ``artifacts/<scenario>``; False: one is gone.

    Raises:
        StorageError: DVC's remote cannot be reached.
    """
    from components.errors import IntegrityError
    from flows.dvc_remote import restore_object

    for path, md5 in people.items():
        try:
            restore_object(root, md5, path, folder / path.rpartition("/")[2])
        except IntegrityError:
            return False
    return True


def sketch_run(tree: Path, scenario: str, ran: Collection[str], say: Callable[[str], None]) -> None:
    """Keep a sketch of the data of a run that has just ended. It never fails the run: what stands in its way is told.

    Args:
        tree: The checkout or worktree of the run.
        scenario: Of params.yaml.
        ran: Addresses of the stages that have just run here; none: they ran before, and it is attached afterwards.
        say: Takes lines for whoever watches.
    """
    try:
        makers = {
            address
            for address, stage in lock_stages(tree).items()
            if people_outputs((str(out["path"]), str(out.get("md5", ""))) for out in stage.get("outs") or ())
        }
        sketch = sketch_here(tree, scenario, DURING if makers & set(ran) else AFTERWARDS)
    except RecstillError as error:
        say(f"no sketch of who is in the data is kept: {error.message}")
    else:
        if sketch is not None:
            say(f"{scenario}: {sketch.count:,} people are in the data; a keyed sketch of them is kept")
