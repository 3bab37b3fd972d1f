"""Each mistake of a user ends in one clear error that says what, where, and what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.end_to_end.conftest import Checkout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "movielnes"], ["movielnes", "movielens"]),
        (["run", "synthetic", "--from", "distil"], ["distil", "'distill'"]),
        (["run", "synthetic", "--set", "scenarios.synthetic.student.network.dimm=3"], ["dimm", "'dim'"]),
        (["run", "synthetic", "--set", "scenarios.synthetc.seed=3"], ["synthetc", "'synthetic'"]),
        (["run", "synthetic", "--set", "scenarios.synthetic.student.network.dim=wide"], ["dim", "wide", "integer"]),
        (["run", "synthetic", "--set", "seed"], ["KEY=VALUE"]),
        (["params", "nothing"], ["nothing", "known"]),
        (["predict", "no/such/folder", "--history", "1"], ["no/such/folder"]),
    ],
)
def test_a_wrong_word_is_named_with_the_nearest_right_one(
    finished: tuple[Checkout, str], arguments: list[str], words: list[str]
) -> None:
    checkout, _ = finished
    error = checkout.refuse("recstill", *arguments)
    assert all(word in error for word in words), error
    assert checkout.succeed("git", "status", "--porcelain", "params.yaml") == ""


def test_outside_of_a_checkout_says_so(finished: tuple[Checkout, str], tmp_path: Path) -> None:
    error = Checkout(tmp_path, finished[0].environment).refuse("recstill", "run")
    assert "dvc.yaml" in error


def scenario_from_table(checkout: Checkout, table: str, columns: str = "{}") -> None:
    """Make ``synthetic`` read a table instead of its generator."""
    (checkout.root / "events.csv").write_text(table)
    path = checkout.root / "params.yaml"
    text = path.read_text()
    start = text.index("      kind: synthetic")
    end = text.index("    prepare:", start)
    path.write_text(f"{text[:start]}      kind: table\n      path: events.csv\n      columns: {columns}\n{text[end:]}")


@pytest.mark.parametrize(
    ("table", "columns", "words"),
    [
        ("user,item,timestamp\n" + "".join(f"1,{n},{n}\n" for n in range(30)), "{}", ["user"]),
        ("user,item,timestamp\n1,2,3\n", "{user: persn}", ["persn"]),
    ],
    ids=["one user", "mapping that misses"],
)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(
    fresh: Checkout, table: str, columns: str, words: list[str]
) -> None:
    scenario_from_table(fresh, table, columns)
    error = fresh.refuse("recstill", "run", "synthetic")
    assert all(word in error for word in words), error
    assert not (fresh.root / "artifacts/synthetic/dataset").exists()


def test_a_missing_table_is_named(fresh: Checkout) -> None:
    scenario_from_table(fresh, "")
    (fresh.root / "events.csv").unlink()
    assert "events.csv" in fresh.refuse("recstill", "run", "synthetic")


def test_a_damaged_artifact_is_made_again(another: Checkout) -> None:
    path = another.root / "artifacts/synthetic/pruned/weights.safetensors"
    before = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(before[: len(before) // 2])
    another.succeed("recstill", "run", "synthetic")
    assert path.read_bytes() == before
