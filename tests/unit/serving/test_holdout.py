"""Both models on the same targets: which these are, and that ranks are those that the service would give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from components.data.dataset import PreparedDataset, read_dataset
from components.data.preparing import prepare, write_dataset
from components.evaluation.scoring import onnx_scorer
from components.serving.holdout import score
from components.serving.package_folder import MODEL
from components.serving.packaging import PackageContent, write_package
from components.settings.prepare import PrepareSettings
from components.tasks.building import task_of
from components.tasks.full_ranking import ranking
from components.tasks.held_out_events import HeldOutEvents, held_out_events
from tests.unit.evaluation.tiny_artifacts import MAX_LENGTH


def dataset(folder: Path, rows: list[tuple[str, str, int]]) -> PreparedDataset:
    events = pl.DataFrame(
        {
            "user": [user for user, _, _ in rows],
            "item": [item for _, item, _ in rows],
            "timestamp": [time * 1_000_000 for _, _, time in rows],
            "row": range(len(rows)),
        },
        schema_overrides={"timestamp": pl.Int64, "row": pl.Int64},
    )
    items = pl.DataFrame({"id": events["item"].unique(), "title": None}, schema_overrides={"title": pl.String})
    write_dataset(folder, prepare(events, items, PrepareSettings(min_user_events=3), "s"))
    return read_dataset(folder)


def history(user: str, items: str, start: int = 0) -> list[tuple[str, str, int]]:
    return [(user, item, start + number) for number, item in enumerate(items)]


def test_events_that_the_champion_learned_from_or_stopped_by_are_no_targets(tmp_path: Path) -> None:
    champion = dataset(tmp_path / "old", history("ann", "abcde") + history("bob", "bcd") + history("cid", "acbd"))
    # Ann has a new event; Bob has none; of Cid the last two were forgotten, so that what validated is the last.
    now = history("ann", "abcdef") + history("bob", "bcd") + history("cid", "acb") + history("dan", "fab")
    challenger = dataset(tmp_path / "new", now)
    found = held_out_events(challenger, champion)
    assert list(found.targets()) == [(list("abcde"), "f"), (list("bc"), "d"), (list("fa"), "b")]
    assert found.dropped == 1
    assert found.span == ("1970-01-01T00:00:02Z", "1970-01-01T00:00:05Z")
    assert held_out_events(challenger, None).dropped == 0 and len(held_out_events(challenger, None).rows) == 4


def test_users_and_items_are_matched_by_id_not_by_number(tmp_path: Path) -> None:
    champion = dataset(tmp_path / "old", history("ann", "wxyz") + history("zoe", "wxyz"))
    # The first user of each has met the third item at the same time, and these are different users and items.
    challenger = dataset(tmp_path / "new", history("bob", "wxy") + history("cat", "vwxyz"))
    assert held_out_events(challenger, champion).dropped == 0
    same_person = dataset(tmp_path / "same", history("zoe", "wxy") + history("cat", "vwxyz"))
    assert held_out_events(same_person, champion).dropped == 1
    another_time = dataset(tmp_path / "later", history("zoe", "wxy", 5) + history("cat", "vwxyz"))
    assert held_out_events(another_time, champion).dropped == 0


def test_ranks_are_those_of_evaluate(package: Path, prepared: PreparedDataset) -> None:
    held_out = held_out_events(prepared, None)
    batches = task_of("next_item", prepared, MAX_LENGTH).evaluation_batches("test", 16)
    expected = ranking(onnx_scorer(package / MODEL), batches, prepared.items)
    found = score(package, held_out)
    assert np.array_equal(expected.users, held_out.users)
    assert found.values == pytest.approx(expected.ndcg, abs=1e-12) and 0 < found.values.mean() < 1
    assert found.cold == int((prepared.train_counts[prepared.item[held_out.rows]] == 0).sum())


def test_what_a_model_does_not_know_counts_as_missed(
    package: Path, content: PackageContent, prepared: PreparedDataset, tmp_path: Path
) -> None:
    held_out = held_out_events(prepared, None)
    target = prepared.item[held_out.rows[0]]
    renamed = prepared.catalogue.with_columns(
        id=pl.when(pl.col("item") == target).then(pl.lit("unheard of")).otherwise(pl.col("id"))
    )
    other = PreparedDataset(**{name: getattr(prepared, name) for name in prepared.__dataclass_fields__})
    other.__dict__["catalogue"] = renamed
    folder = tmp_path / "package"
    folder.mkdir()
    write_package(folder, content, task_of("next_item", other, 8))
    found = score(folder, held_out)
    unknown = prepared.item[held_out.rows] == target
    assert (found.values[unknown] == 0).all() and found.cold == score(package, held_out).cold + unknown.sum()


def test_an_item_that_the_user_has_met_before_is_ranked_among_the_unseen(
    package: Path, prepared: PreparedDataset
) -> None:
    class Again(HeldOutEvents):
        def targets(self):  # type: ignore[no-untyped-def]
            for items, _ in super().targets():
                yield items, items[-1]

    ids = {name: number for number, name in enumerate(prepared.catalogue["id"].to_list())}
    held_out = Again(prepared, held_out_events(prepared, None).rows, 0)
    batches = []
    for items, target in held_out.targets():
        read = [ids[item] for item in items][-MAX_LENGTH:]
        batches.append((read, [ids[item] for item in items], ids[target]))
    from components.evaluation.onnx_session import new_session

    session = new_session(package / MODEL)
    expected = []
    for read, seen, target in batches:
        feed = {"items": np.array([read], dtype=np.int64), "length": np.array([len(read)], dtype=np.int64)}
        scores = session.run(["scores"], feed)[0][0]
        before = (scores > scores[target]) | ((scores == scores[target]) & (np.arange(len(scores)) < target))
        before[seen] = False
        rank = before.sum()
        expected.append(1 / np.log2(rank + 2) if rank < 10 else 0)
    assert score(package, held_out).values == pytest.approx(expected, abs=1e-12)
