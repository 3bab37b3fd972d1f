"""What is recalled now, as far as this checkout can know: the log's word, held against those who remember it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import IntegrityError
from components.provenance.recalls import Recall, RecallState, recall_log, recall_state, recalls_of, refuse_recalled
from components.provenance.signed_log import anchor_problem
from components.storage.contract import ObjectStore
from flows.auditing.witness import check_and_remember
from flows.trust import trusted

if TYPE_CHECKING:
    from components.serving.pointer import Switch
    from components.serving.releases import Release


def recalls_now(root: Path, store: ObjectStore, live: Switch | None = None) -> RecallState:
    """The recalls in force.

    Args:
        root: The checkout.
        store: Where the log lies.
        live: The newest switch of a model: it names how far the log went when it was made.

    Raises:
        IntegrityError: The log is not whole, or was cut.
        StorageError: The store cannot be read.
    """
    log = recall_log(store)
    problem = check_and_remember(root, store, log)
    if not problem and live is not None:
        problem = anchor_problem(log, live.recalls, live.recalls_digest)
    if problem:
        raise IntegrityError(
            f"what is recalled cannot be known: {problem}",
            "Put it back from a copy of the store: `recstill verify --repair --from ADDRESS`.",
        )
    return recall_state(store, trusted(root))


def inherited(store: ObjectStore, release: Release, recalls: Sequence[Recall]) -> list[Recall]:
    """The recalls that a release inherits, by its lineage or by the statements of its stages.

    Args:
        store: Where its statements lie.
        release: Which.
        recalls: Those in force.

    Raises:
        MissingObjectError: The statements that it lists are gone.
        IntegrityError: They are damaged.
        StorageError: The store cannot be read.
    """
    from components.serving.origins import origin_ids

    return recalls_of(origin_ids(store, release), recalls) if recalls else []


def require_not_recalled(root: Path, store: ObjectStore, release: Release, live: Switch | None) -> RecallState:
    """Refuse a release that has inherited a recall.

    Returns:
        What was seen of the log, to be written down with the decision.

    Raises:
        RecalledError: It has.
        IntegrityError: The log is not whole, or was cut.
        StorageError: The store cannot be read.
    """
    state = recalls_now(root, store, live)
    refuse_recalled(str(release), inherited(store, release, state.recalls))
    return state
