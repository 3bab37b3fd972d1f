from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import subprocess
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from components.errors import RecstillError
from components.provenance.recalls import put_recall
from components.provenance.signing import signing_key
from components.storage.folder_store import FolderStore
from flows.auditing.lineage import Lineage, Node, Trace
from flows.auditing.lineage_tree import document_of, tree_of
from flows.auditing.resolving import resolve
from flows.auditing.subject import UnknownError
from flows.console import Console
from tests.benchmarks.audit.history import History, digest

LAST = 6
"""The turn of shop@v4."""
CHAIN = ["package", "report", "quantized", "pruned", "student", "soft_labels", "teacher", "dataset", "events"]


def trace(root: Path, text: str | Path) -> Trace:
    lineage = Lineage(root)
    return lineage.trace(resolve(lineage, str(text)))


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_named_is_not_the_folder_that_one_stands_in(history: History, text: str) -> None:
    with pytest.raises(UnknownError, match="nothing is named"):
        trace(history.root, text)


def copied(history: History, folder: Path, path: str, turn: int = LAST) -> Path:
    """The bytes of a file of a version, under a name that says nothing."""
    file = folder / f"renamed-{hashlib.md5(path.encode()).hexdigest()[:6]}"
    file.write_bytes(history.content(turn, path))
    return file


def node(chain: Trace, role: str) -> Node:
    return next(one for one in chain.nodes if one.role == role and one.run.scenario == "shop")


def roles(chain: Trace, version: str = "shop@v4") -> list[str]:
    """What was made, nearest first, in one version."""
    return [one.role for one in chain.nodes if version in one.versions]


@pytest.mark.parametrize(
    "path",
    [
        "artifacts/shop/package/model.onnx",
        "artifacts/shop/package/package.json",
        "artifacts/shop/quantized/pruned.int4_table4.onnx",
        "artifacts/shop/student/weights.safetensors",
        "artifacts/shop/teacher/member-0/weights.safetensors",
        "artifacts/shop/dataset/train.parquet",
        "artifacts/shop/events.parquet",
        "artifacts/shop/soft_labels/manifest.json",
    ],
)
def test_any_file_leads_to_its_teacher_and_its_data_from_a_renamed_copy_alone(
    history: History, tmp_path: Path, path: str
) -> None:
    chain = trace(history.root, copied(history, tmp_path, path))
    kind = path.split("/")[2].partition(".")[0]
    assert [one for one in roles(chain) if one != "baseline"] == CHAIN[CHAIN.index(kind) :]
    assert {one.path for one in chain.sources} == {"data/orders.csv"}
    assert not [label for one in chain.nodes if "shop@v4" in one.versions for label in one.labels]


def test_a_node_tells_digest_size_stage_commit_parameters_metrics_who_and_when(
    history: History, tmp_path: Path
) -> None:
    chain = trace(history.root, copied(history, tmp_path, "artifacts/shop/package/model.onnx"))
    record = json.loads(json.dumps(document_of(chain)))
    teacher = next(one for one in record["chain"] if one["role"] == "teacher" and "shop@v4" in one["versions"])
    assert teacher["digest"] == digest("shop", 4, "teacher")
    assert teacher["stage"] == "train_teacher" and teacher["who"] == "Tess Ter <tess@example.org>"
    assert teacher["finished"].startswith("2023-11-2") and teacher["attached"] == "during the run"
    assert teacher["params"]["teacher"]["network"]["dim"] == 64
    assert teacher["metrics"] == {"epochs": 3, "validation_ndcg10": 0.1}
    assert teacher["recorded"]["who"] == "Tess Ter" and len(teacher["recorded"]["id"]) == 40
    (folder,) = [one for one in teacher["outputs"] if one["path"] == "artifacts/shop/teacher"]
    assert folder["md5"].endswith(".dir") and folder["bytes"] > 0
    read = {one["path"]: one["from"] for one in teacher["inputs"]}
    assert record["chain"][read["artifacts/shop/dataset"]]["role"] == "dataset"


def test_a_warm_start_is_part_of_where_a_teacher_comes_from(history: History) -> None:
    lineage = Lineage(history.root)
    subject = resolve(lineage, digest("shop", 4, "teacher"))

    def teachers(chain: Trace) -> list[str | None]:
        return [one.digest for one in chain.nodes if one.role == "teacher"]

    chain = lineage.trace(subject)
    assert teachers(chain) == [digest("shop", version, "teacher") for version in (4, 3)]
    assert any("--warm-starts" in label for label in chain.nodes[-1].labels + chain.nodes[1].labels)
    every = lineage.trace(subject, warm_starts=True)
    assert teachers(every) == [digest("shop", version, "teacher") for version in (4, 3, 2, 1)]


@pytest.mark.parametrize("kind", ["source", "dataset", "teacher", "student", "pruned", "soft_labels", "baseline"])
def test_a_digest_or_its_first_digits_name_an_artifact(history: History, kind: str) -> None:
    whole = digest("shop", 3, kind)
    for text in (whole, whole[:12], f"sha256:{whole[:10]}", whole.upper()):
        chain = trace(history.root, text)
        assert [(one.role, one.versions) for one in chain.ends] == [(kind, ["shop@v3"])]


def test_digests_of_files_md5_and_sha256_and_of_attestations_are_known(history: History) -> None:
    content = history.content(LAST, "artifacts/shop/student/weights.safetensors")
    release = history.root / ".recstill/store/releases/shop/v4/attestation.dsse.json"
    manifest = json.loads(history.content(LAST, "artifacts/shop/soft_labels/manifest.json"))
    for text, role in (
        (hashlib.sha256(content).hexdigest(), "student"),
        (hashlib.md5(content).hexdigest(), "student"),
        (hashlib.sha256(release.read_bytes()).hexdigest(), "package"),
        (manifest["parts"][0]["sha256"], "soft_labels"),
    ):
        assert [(one.role, one.versions) for one in trace(history.root, text).ends] == [(role, ["shop@v4"])]


def test_digits_that_begin_several_digests_are_refused(history: History) -> None:
    lineage = Lineage(history.root)
    known = sorted({md5 for lock in lineage.history.locks for run in lock.stages for md5 in run.outputs.values()})
    pair = min(itertools.pairwise(known), key=lambda pair: -len(_begin(*pair)))
    lineage.records.expand = lambda prefix: set(pair)  # type: ignore[method-assign]
    with pytest.raises(RecstillError, match="begins 2 digests"):
        resolve(lineage, _begin(*pair).ljust(8, "0"))


def _begin(one: str, other: str) -> str:
    return one[: next(number for number, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1)]


def test_versions_and_data_sets_at_a_revision_are_known_and_wrong_ones_refused(history: History) -> None:
    assert roles(trace(history.root, "news@v2"), "news@v2")[0] == "package"
    branch = subprocess.run(["git", "branch", "--list", "*shop*"], capture_output=True, text=True, check=True).stdout
    chain = trace(history.root, f"shop@{branch.split()[0]}")
    assert [one.role for one in chain.ends] == ["dataset"]
    for text, message in (
        ("shop@v9", "not registered"),
        ("shop@nowhere", "no revision"),
        ("shop@main", "no dvc.lock"),
        ("deadbeefdeadbeef", "nothing known here"),
        ("what?", "no file, no digest"),
    ):
        with pytest.raises(UnknownError, match=message):
            trace(history.root, text)


def test_unknown_bytes_are_told_with_what_was_searched(history: History, tmp_path: Path) -> None:
    (tmp_path / "foreign.onnx").write_bytes(b"nothing of ours")
    with pytest.raises(UnknownError) as raised:
        trace(history.root, tmp_path / "foreign.onnx")
    assert "8 versions of dvc.lock" in raised.value.remedy and "8 releases" in raised.value.remedy


def test_a_folder_is_known_as_a_whole_and_by_its_files_when_it_was_changed(history: History, tmp_path: Path) -> None:
    folder = tmp_path / "somewhere"
    folder.mkdir()
    for name in ("architecture.json", "weights.safetensors"):
        (folder / name).write_bytes(history.content(LAST, f"artifacts/shop/student/{name}"))
    chain = trace(history.root, folder)
    assert not chain.subject.weak and roles(chain)[0] == "student"
    (folder / "notes.txt").write_text("mine")
    chain = trace(history.root, folder)
    assert "notes.txt" not in chain.subject.weak and "the folder as a whole is not known" in chain.subject.weak
    assert roles(chain)[0] == "student"


def test_a_model_that_was_changed_is_known_by_what_it_says_of_itself_and_labelled_so(
    history: History, tmp_path: Path
) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [value])
    model = helper.make_model(graph)
    helper.set_model_props(model, {"recstill.pruned": digest("shop", 2, "pruned"), "recstill.commit": "f" * 40})
    onnx.save(model, tmp_path / "changed.onnx")
    chain = trace(history.root, tmp_path / "changed.onnx")
    assert "anybody can write that" in chain.subject.weak
    assert [(one.role, one.versions) for one in chain.ends] == [("pruned", ["shop@v2"])]


def test_a_source_and_a_module_are_called_what_they_are(history: History, tmp_path: Path) -> None:
    for name, what in (("data/orders.csv", "a source that"), ("components/stages/prune.py", "code that")):
        (tmp_path / "copy").write_bytes(f"{name}, written 0 times\n".encode())
        chain = trace(history.root, tmp_path / "copy")
        assert not chain.nodes and any(what in note for note in chain.notes)


def statement_of(history: History, chain: Trace, role: str) -> Path:
    return history.root / f".recstill/store/provenance/shop/{node(chain, role).run.entry}.dsse.json"


def test_what_nobody_signed_or_a_stranger_signed_is_labelled(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = trace(history.root, "shop@v1")
    statement_of(history, chain, "pruned").unlink()
    file = statement_of(history, chain, "student")
    damaged = json.loads(file.read_bytes())
    damaged["signatures"][0]["sig"] = "AAAA" + damaged["signatures"][0]["sig"][4:]
    file.write_text(json.dumps(damaged))
    chain = trace(history.root, "shop@v1")
    assert node(chain, "pruned").labels == ["not attested"]
    assert node(chain, "student").labels[0].startswith("signature not trusted")
    assert not node(chain, "teacher").labels
    stranger = signing_key(tmp_path / "stranger").public.pem
    monkeypatch.setenv("RECSTILL_TRUSTED_KEYS", stranger)
    chain = trace(history.root, "shop@v1")
    assert all(
        any("signature not trusted" in label for label in one.labels) or one.role == "pruned" for one in chain.nodes
    )
    assert any("signature not trusted" in note for note in chain.notes)


def test_without_git_the_store_alone_tells_the_chain(history: History, tmp_path: Path) -> None:
    shutil.rmtree(history.root / ".git")
    for text in ("shop@v2", copied(history, tmp_path, "artifacts/shop/student/weights.safetensors", 2)):
        chain = trace(history.root, text)
        assert {"teacher", "dataset", "events"} <= {one.role for one in chain.nodes}
        digests = {one.digest for one in chain.nodes if one.role == "dataset"}
        assert digests == {digest("shop", 2, "dataset")}
        assert all(any("not in this repository" in label for label in one.labels) for one in chain.nodes)


def test_a_lock_that_contradicts_itself_is_told(history: History) -> None:
    lineage = Lineage(history.root)
    release = lineage.shelf.release("shop", 1)
    assert release is not None
    lock = subprocess.run(
        ["git", "show", f"{release.commit}:dvc.lock"], capture_output=True, check=True
    ).stdout.decode()
    made = next(
        run
        for run in lineage.records.makers(_md5(lineage, "student"), first=None)[0].lock.stages
        if run.stage == "distill"
    )
    md5 = made.outputs["artifacts/shop/student"]
    head, tail = lock.split("  prune@shop:\n")
    (history.root / "dvc.lock").write_text(f"{head}  prune@shop:\n{tail.replace(md5, 'a' * 32 + '.dir')}")
    lineage = Lineage(history.root)
    here = next(lock for lock in lineage.history.locks if lock.where)
    pruned = next(run for run in here.stages if run.address == "prune@shop")
    subject = resolve(lineage, pruned.outputs["artifacts/shop/pruned"])
    subject.lock = here
    chain = lineage.trace(subject)
    assert any(
        "nobody has recorded how artifacts/shop/student was made" in label for label in node(chain, "pruned").labels
    )
    assert "in no commit yet" in node(chain, "pruned").labels


def _md5(lineage: Lineage, kind: str) -> str:
    lock = next(lock for lock in lineage.history.locks if "shop@v1" in lock.versions)
    return next(run.outputs[f"artifacts/shop/{kind}"] for run in lock.stages if f"artifacts/shop/{kind}" in run.outputs)


def test_a_recalled_data_set_shows_red_and_with_its_reason(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    store = FolderStore(history.root / ".recstill" / "store")
    bad = {"digests": [digest("shop", 2, "dataset")], "kind": "dataset", "name": "shop", "reason": "a bot wrote it"}
    put_recall(store, **bad, who="Tess", expected=0, key=history.key)
    chain = trace(history.root, "shop@v2")
    red = [one for one in chain.nodes if one.recalls]
    assert [(one.role, one.versions, one.recalls[0].reason) for one in red] == [
        ("dataset", ["shop@v2"], "a bot wrote it")
    ]
    Console().tree(tree_of(chain))
    assert "RECALLED by Tess" in capsys.readouterr().out


def test_the_tree_shows_each_run_once_and_the_picture_is_the_same_every_time(
    history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.auditing.picture import draw, picture

    chain = trace(history.root, "shop@v1")
    Console().tree(tree_of(chain))
    shown = capsys.readouterr().out
    assert all(shown.count(f"  {one.run.address}") == 1 for one in chain.nodes)
    assert "data/orders.csv" in shown and "source" in shown
    svg = picture(chain)
    assert svg == picture(chain) and svg.startswith(b"<?xml")
    assert all(one.role.replace("_", " ").encode() in svg for one in chain.nodes)
    draw(chain, tmp_path / "chain.png")
    assert (tmp_path / "chain.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RecstillError, match="no form"):
        draw(chain, tmp_path / "chain.gif")
