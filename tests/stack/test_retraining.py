"""Retraining as a user or a worker starts it: new data, the gate, two at once, kills, and whatever stops it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from components.data.synthetic import draw_events
from components.settings.source import SyntheticSource
from tests.end_to_end.conftest import Checkout, new_checkout

_IDENTITY = ("-c", "user.name=test", "-c", "user.email=test@example.org")
_NETWORK = {"dim": 16, "blocks": 1, "heads": 2, "ffn_dim": 16, "max_length": 12, "dropout": 0.0}
_OPTIMIZATION = {"max_epochs": 6, "patience": 6, "batch_size": 16, "learning_rate": 0.01, "average_decay": 0.9}
SCENARIO: dict[str, Any] = {
    "task": "next_item",
    "seed": 0,
    "source": {"kind": "table", "path": "data/shop"},
    "prepare": {},
    "teacher": {"network": _NETWORK, "optimization": _OPTIMIZATION},
    "student": {"network": _NETWORK, "optimization": _OPTIMIZATION},
    "trainer": {"accelerator": "cpu"},
    "soft_labels": {"k": 8},
    "distillation": {},
    "pruning": {"ffn_ratio": 0.5, "optimization": _OPTIMIZATION | {"max_epochs": 1, "patience": 1}},
    "quantization": {"variants": ["int8_table8"], "table_block": 16},
    "evaluation": {"bootstrap_samples": 200, "latency_requests": 10, "throughput_batches": 2},
    "budget": {},
    "gate": {"min_retention": 0.05},
    "retraining": {"gate": {"min_targets": 50, "margin": 0.3}},
}
# Their bytes hold measured times, and so do those of what is made from them.
_MEASURED = ("metrics/", "report", "package")


def shops(folder: Path) -> Checkout:
    """A checkout with the scenarios `shop` and `toys` on the older part of a log, which is in no commit."""
    checkout = new_checkout(folder)
    events = draw_events(SyntheticSource(kind="synthetic", path="-", users=200, items=60, events_per_user=16))
    place = events.select(left=pl.len().over("user") - pl.int_range(pl.len()).over("user"))["left"]
    (checkout.root / "data" / "shop").mkdir(parents=True)
    events.filter(place > 2).write_csv(checkout.root / "data" / "shop" / "1.csv")
    events.filter(place <= 2).write_csv(folder / "2.csv")
    change(checkout, lambda scenarios: scenarios.update(shop=SCENARIO, toys=SCENARIO | {"seed": 1}))
    return checkout


def change(checkout: Checkout, how: Any) -> None:
    """Change the scenarios of params.yaml, and commit that."""
    path = checkout.root / "params.yaml"
    document = yaml.safe_load(path.read_text())
    how(document["scenarios"])
    path.write_text(yaml.safe_dump(json.loads(json.dumps(document, default=str)), sort_keys=False))
    checkout.succeed("git", *_IDENTITY, "commit", "-q", "-a", "-m", "parameters")


def retrain(checkout: Checkout, *options: str, status: int = 0) -> dict[str, Any]:
    """How `recstill retrain` says that it ended."""
    done = checkout.run("recstill", "retrain", *options, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run_to_its_kill(checkout: Checkout, code: str) -> str:
    """What a Python program prints until it kills itself; the Prefect server that outlives it is ended too."""
    log = checkout.root.parent / "killed.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=checkout.root,
            env=checkout.environment,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
        status = process.wait(timeout=400)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    printed = log.read_text()
    assert status == -signal.SIGKILL, printed
    return printed


def deploy(checkout: Checkout, version: int, name: str = "shop") -> None:
    """Make a version live."""
    code = (
        "import sys; from pathlib import Path\n"
        "from components.provenance.signing import signing_key, trusted_keys\n"
        "from components.serving.pointer import current, switch\n"
        "from components.serving.releases import read_release\n"
        "from flows.repository import keys_of, store_of\n"
        "name, version = sys.argv[1], int(sys.argv[2])\n"
        "store, folder = store_of(Path.cwd()), keys_of(Path.cwd())\n"
        "key, keys = signing_key(folder), trusted_keys(folder)\n"
        "now, release = current(store, name, keys), read_release(store, name, version, keys)\n"
        "expected = now.number if now else 0\n"
        "switch(store, name, release, expected=expected, kind='deploy', who='test', why='', key=key, keys=keys)\n"
    )
    checkout.succeed("python", "-c", code, name, str(version))


def killed_while_finalizing(checkout: Checkout, name: str, step: str) -> str:
    """Retrain, and kill that before a step of finalizing; what it printed until then."""
    code = (
        "import os, signal\n"
        "from flows import finalizing\n"
        f"number = [name for name, _ in finalizing.STEPS].index({step!r})\n"
        "stop = ('stop', lambda work: os.kill(os.getpid(), signal.SIGKILL))\n"
        "finalizing.STEPS = (*finalizing.STEPS[:number], stop, *finalizing.STEPS[number:])\n"
        f"from flows.cli import app; app(['retrain', {name!r}])"
    )
    return run_to_its_kill(checkout, code)


def more_data(checkout: Checkout, number: int) -> None:
    """Another file arrives: a hundred events of that many days later."""
    events = pl.read_csv(checkout.root / "data" / "shop" / "1.csv").head(100)
    later = events.with_columns(timestamp=pl.col("timestamp") + number * 86_400 + 10**7)
    later.write_csv(checkout.root / "data" / "shop" / f"{number}.csv")


def events_of(checkout: Checkout, tag: str) -> int:
    """How many events the data set of a version has."""
    code = (
        "import sys, json, tempfile; from pathlib import Path; from flows.dvc_remote import restore_output\n"
        "folder = Path(tempfile.mkdtemp()) / 'dataset'\n"
        "restore_output(Path.cwd(), sys.argv[1], 'artifacts/toys/dataset', folder)\n"
        "print(json.loads((folder / 'dataset.json').read_text())['events'])"
    )
    return int(checkout.succeed("python", "-c", code, tag))


def states(checkout: Checkout, name: str) -> dict[int, str]:
    rows = json.loads(checkout.succeed("recstill", "versions", name, "--json"))["versions"]
    return {row["version"]: row["state"] for row in rows}


def lock_of(checkout: Checkout, branch_of: str) -> dict[str, Any]:
    """What a run's branch records, but for bytes that hold measured times."""
    (branch,) = checkout.succeed("git", "branch", "--list", "--format=%(refname)", f"recstill/{branch_of}/*").split()
    stages = yaml.safe_load(checkout.succeed("git", "show", f"{branch}:dvc.lock"))["stages"]
    for stage in stages.values():
        for kind in ("deps", "outs"):
            stage[kind] = [
                {"path": entry["path"]} if any(word in entry["path"] for word in _MEASURED) else entry
                for entry in stage[kind]
            ]
    return stages


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Both scenarios retrained at once: the first versions."""
    made = shops(tmp_path_factory.mktemp("shops"))
    running = {
        name: subprocess.Popen(
            ["recstill", "retrain", name],
            cwd=made.root,
            env=made.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in ("shop", "toys")
    }
    time.sleep(8)
    overlapping = made.refuse("recstill", "retrain", "shop")
    assert "a retraining of shop is at work already" in overlapping
    for name, process in running.items():
        printed, _ = process.communicate(timeout=400)
        assert process.returncode == 0, printed
        assert f"registered {name}@v1" in printed
    return made


def test_nothing_of_the_user_is_touched(checkout: Checkout) -> None:
    assert checkout.succeed("git", "status", "--porcelain").splitlines() == ["?? data/"]
    assert sorted(path.name for path in (checkout.root / "data/shop").iterdir()) == ["1.csv"]
    assert not (checkout.root / "artifacts").exists()


def test_two_at_once_give_the_same_lock_as_one_after_the_other(checkout: Checkout, tmp_path: Path) -> None:
    other = shops(tmp_path)
    for name in ("shop", "toys"):
        assert retrain(other, name)["ended"] == "registered"
        assert lock_of(other, name) == lock_of(checkout, name)


def test_the_same_again_is_nothing_new_within_seconds(checkout: Checkout) -> None:
    started = time.monotonic()
    found = retrain(checkout, "shop")
    assert time.monotonic() - started < 15
    assert (found["ended"], found["version"]) == ("nothing new", 1)
    assert retrain(checkout, "shop", "--as-of", "2031-01-01")["ended"] == "nothing new"
    assert retrain(checkout, "shop", "--force")["ended"] == "nothing new"


def test_new_data_are_measured_against_the_champion_and_a_killed_run_ends_in_the_same_version(
    checkout: Checkout,
) -> None:
    deploy(checkout, 1)
    later = checkout.root.parent / "2.csv"
    (checkout.root / "data" / "shop" / "2.csv").write_bytes(later.read_bytes())
    killed = (
        "import os, signal, flows.finalizing\n"
        "flows.finalizing.finalize = lambda run, say: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from flows.cli import app; app(['retrain', 'shop', '--warm', '--as-of', '2030-06-01'])"
    )
    printed = run_to_its_kill(checkout, killed)
    assert "drift against v1" in printed and "the gate lets it through" in printed
    assert "starting from teacher" in printed
    # The next day the schedule names another instant; the data are the same.
    found = retrain(checkout, "shop", "--warm", "--as-of", "2030-06-02")
    verdict = found["verdict"]
    assert (found["ended"], found["version"], verdict["kind"]) == ("registered", 2, "champion")
    assert verdict["champion"]["version"] == 1 and verdict["holdout"]["targets"] == 200
    assert verdict["drift"]["events_after"] > verdict["drift"]["events_before"]
    params = yaml.safe_load(checkout.succeed("git", "show", "shop@v2.0.0:params.yaml"))["scenarios"]["shop"]
    assert params["source"]["as_of"] == "2030-06-01T00:00:00Z" and len(params["teacher"]["warm_start"]) == 64
    assert retrain(checkout, "shop", "--warm")["version"] == 2


def test_a_worse_challenger_is_refused_and_says_so_again(checkout: Checkout) -> None:
    deploy(checkout, 2)

    def worse(scenarios: Any) -> None:
        scenarios["shop"]["student"]["optimization"]["learning_rate"] = 1e-6
        scenarios["shop"]["pruning"]["optimization"]["learning_rate"] = 1e-6
        scenarios["shop"]["gate"]["min_retention"] = 1e-6

    change(checkout, worse)
    found = retrain(checkout, "shop", status=3)
    assert found["ended"] == "refused" and found["verdict"]["reasons"][0].startswith("quality: NDCG@10")
    assert "v2 stays live" in found["message"]
    started = time.monotonic()
    again = retrain(checkout, "shop")
    assert again["ended"] == "nothing new" and again["verdict"] == found["verdict"]
    assert time.monotonic() - started < 15
    assert checkout.succeed("git", "tag", "--list", "shop@*").split() == ["shop@v1.0.0", "shop@v2.0.0"]


def test_when_no_variant_may_ship_the_run_is_refused_with_what_they_miss(checkout: Checkout) -> None:
    change(checkout, lambda scenarios: scenarios["shop"].update(budget={"max_bytes": 10}))
    found = retrain(checkout, "shop", status=3)
    assert "budget.max_bytes" in found["message"] and found["verdict"]["champion"] == {"version": 2}


def test_data_that_have_not_moved_are_not_trained_on(checkout: Checkout) -> None:
    change(checkout, lambda scenarios: scenarios["shop"]["retraining"].update(drift={"retrain": "when_moved"}))
    found = retrain(checkout, "shop")
    assert found["ended"] == "nothing new" and "hardly moved since v2" in found["message"]


def test_data_that_have_moved_too_far_stop_it(checkout: Checkout) -> None:
    events = pl.read_csv(checkout.root / "data" / "shop" / "1.csv")
    turned = events.with_columns(item=61 - pl.col("item"), timestamp=pl.col("timestamp") + 10**6)
    turned.write_csv(checkout.root / "data" / "shop" / "3.csv")
    change(checkout, lambda scenarios: scenarios["shop"]["retraining"].update(drift={"max_psi": 0.001}))
    found = retrain(checkout, "shop", status=3)
    assert "drift.max_psi" in found["message"] and found["verdict"]["challenger"] is None


def test_what_stops_it_is_one_clear_message(checkout: Checkout) -> None:
    (checkout.root / "components" / "new.py").write_text("")
    assert "components/new.py" in checkout.refuse("recstill", "retrain", "shop")
    (checkout.root / "components" / "new.py").unlink()
    assert "unknown scenario 'shops'" in checkout.refuse("recstill", "retrain", "shops")
    assert "no date" in checkout.refuse("recstill", "retrain", "shop", "--as-of", "yesterday")
    assert "Prefect" in checkout.refuse(
        "recstill", "retrain", "toys", "--warm", PREFECT_API_URL="http://127.0.0.1:9/api"
    )


def test_the_flow_runs_without_the_command(checkout: Checkout) -> None:
    code = "from flows.retrain import retrain; print(retrain('toys').message)"
    assert checkout.succeed(sys.executable, "-c", code).splitlines()[-1].startswith("registered toys@v2")


@pytest.mark.parametrize("step", ["verify", "push branch", "tag"])
def test_what_an_earlier_run_left_is_finished_first_though_its_data_have_moved_on(
    checkout: Checkout, step: str
) -> None:
    before = max(states(checkout, "toys"))
    more_data(checkout, 10 * before)
    assert "the gate lets it through" in killed_while_finalizing(checkout, "toys", step)
    more_data(checkout, 10 * before + 1)
    found = retrain(checkout, "toys")
    assert (found["ended"], found["version"]) == ("registered", before + 2)
    assert f"registered toys@v{before + 1}" in found["message"]
    assert {version: state for version, state in states(checkout, "toys").items() if version > before} == {
        before + 1: "registered",
        before + 2: "registered",
    }
    counts = [events_of(checkout, f"toys@v{version}.0.0") for version in (before + 1, before + 2)]
    assert counts == [counts[0], counts[0] + 100], "each version is of the data that its run saw"
    assert retrain(checkout, "toys")["ended"] == "nothing new"


def test_what_an_earlier_run_left_is_given_up_when_what_it_was_judged_against_is_not_live_any_more(
    checkout: Checkout,
) -> None:
    before = max(states(checkout, "toys"))
    more_data(checkout, 10 * before)
    killed_while_finalizing(checkout, "toys", "attest")
    deploy(checkout, before, "toys")
    more_data(checkout, 10 * before + 1)
    done = checkout.run("recstill", "retrain", "toys")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"is given up: it was judged against nothing, and v{before} is live" in done.stdout
    assert max(states(checkout, "toys")) == before + 1
    assert retrain(checkout, "toys")["ended"] == "nothing new"


def test_the_gate_compares_with_what_goes_live_while_a_challenger_is_trained(checkout: Checkout) -> None:
    newest = max(states(checkout, "toys"))
    more_data(checkout, 10 * newest)
    code = (
        "from pathlib import Path\n"
        "from flows import promoting, retrain\n"
        "graph = retrain._graph\n"
        "def meanwhile(found):\n"
        "    report = graph(found)\n"
        f"    promoting.bring_live(Path.cwd(), promoting.Order('toys', {newest}), lambda line: None)\n"
        "    return report\n"
        "retrain._graph = meanwhile\n"
        "from flows.cli import app; app(['retrain', 'toys', '--json'])"
    )
    done = checkout.run("python", "-c", code)
    assert f"meanwhile v{newest} is live" in done.stderr, done.stdout + done.stderr
    verdict = json.loads(done.stdout)["verdict"]
    assert verdict["champion"]["version"] == newest
    assert verdict["drift"]["events_after"] - verdict["drift"]["events_before"] == 100, "against its data too"
    assert verdict["holdout"]["targets"] > 0, "and those that it has not learned from"
