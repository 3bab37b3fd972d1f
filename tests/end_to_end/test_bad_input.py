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
        (["run", "synthetic", "--to", "quantise"], ["quantise", "'quantize'"]),
        (["run", "synthetic", "--from", "quantize", "--to", "distill"], ["--from", "--to distill"]),
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


CLOSED = "http://127.0.0.1:9/api"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "synthetic"],
        ["run", "synthetic", "--set", "scenarios.synthetic.seed=3"],
        ["soft-labels", "build", "synthetic"],
        ["retrain", "synthetic"],
        ["schedule", "synthetic", "--every", "1d"],
        ["schedule", "--list"],
    ],
    ids=" ".join,
)
def test_a_prefect_server_that_is_down_is_one_error_and_nothing_half_done(
    fresh: Checkout, arguments: list[str]
) -> None:
    done = fresh.run("recstill", *arguments, PREFECT_API_URL=CLOSED.replace("127", "me:secret@127"))
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr, done.stderr
    assert done.stderr.count("error:") == 1 and f"server at {CLOSED} does not answer" in done.stderr, done.stderr
    assert "PREFECT_API_URL" in done.stderr and "secret" not in done.stdout + done.stderr
    # Neither parameters nor a lock nor an output of the user's, nor anything that is registered.
    assert fresh.succeed("git", "status", "--porcelain") == ""
    assert not (fresh.root / "artifacts").exists()
    assert fresh.succeed("git", "tag") == "" and not list(fresh.root.glob(".recstill/store/r*"))


def test_an_address_that_prefect_cannot_read_is_named(fresh: Checkout) -> None:
    error = fresh.refuse("recstill", "run", "synthetic", PREFECT_API_URL="http://[::1/api")
    assert "PREFECT_API_URL is no address" in error and "http://[::1/api" in error


def test_a_server_that_is_down_is_not_missed_when_there_is_nothing_to_run(finished: tuple[Checkout, str]) -> None:
    assert "up to date" in finished[0].succeed("recstill", "run", "synthetic", PREFECT_API_URL=CLOSED)
