"""A repository with hundreds of registered versions, and a store that goes with it, made within seconds; and how long
``recstill trace`` and ``recstill impact`` take on them.

Everything has the form that the pipeline gives it: locks as DVC writes them (from the real ``dvc.yaml``, two scenarios,
some 120 KB), a branch and an annotated tag a version, signed releases, statements and bundles, manifests of soft
labels. The bytes are small, and every digest is that of real bytes: :meth:`History.content` gives those of any file.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components.provenance.signing import SigningKey, sign, signing_key
from components.provenance.stage_run import FileDigests, StageStatement, of_lock_entry
from components.provenance.stage_statement import bundle, signed, statement_key
from flows.locked_outputs import listing, listing_md5

ROOT = Path(__file__).parents[3]
NAMES = ("shop", "news")
_FIRST = 1_700_000_000
_DAY = 86_400
# What lies in the folders that stages make.
_MEMBERS = {
    "dataset": ("dataset.json", "items.parquet", "test.parquet", "train.parquet", "validation.parquet"),
    "teacher": ("member-0/architecture.json", "member-0/weights.safetensors", "teacher.json"),
    "quantized": ("pruned.int4_table4.onnx", "pruned.int8_table8.onnx", "variants.json"),
    "package": ("golden.json", "model.onnx", "package.json", "signature.json", "vocabulary.parquet"),
}
_NETWORK = ("architecture.json", "weights.safetensors")
_FOLDERS = (*_MEMBERS, "student", "pruned", "baseline")
_DIGESTS = ("source", "dataset", "teacher", "baseline", "student", "pruned", "variants")


@dataclass(frozen=True)
class History:
    """What was made.

    Attributes:
        root: The checkout.
        versions: How many there are, over both scenarios.
        key: Signs everything.
    """

    root: Path
    versions: int
    key: SigningKey

    @staticmethod
    def of(turn: int) -> tuple[str, int]:
        """Name and version of what was registered in a turn, from 0."""
        return NAMES[turn % 2], turn // 2 + 1

    @staticmethod
    def content(turn: int, path: str) -> bytes:
        """The bytes of a file that was made in a turn."""
        name, version = History.of(turn)
        if path.endswith("soft_labels/manifest.json"):
            return _json(_manifest(name, version))
        if path.endswith("/lineage.json"):
            return _json({kind: digest(name, version, kind) for kind in _DIGESTS})
        if path.endswith("package/package.json"):
            files = [one for one in _MEMBERS["package"] if one != "package.json"]
            listed = {one: _sha(History.content(turn, f"artifacts/{name}/package/{one}")) for one in files}
            return _json({"format": 1, "name": name, "files": {one: {"sha256": sha} for one, sha in listed.items()}})
        return f"{path} of {name}@v{version}\n".encode() * (30 if path.endswith("events.parquet") else 3)


def digest(name: str, version: int, kind: str) -> str:
    """What names an artifact of a version as a whole."""
    return _sha(f"{kind} of {name}@v{version}".encode())


def build(folder: Path, versions: int = 500) -> History:
    """Make the checkout and its store below ``folder``, which must be empty or missing.

    Args:
        folder: Where.
        versions: How many, over both scenarios.
    """
    root = folder / "checkout"
    (root / ".dvc").mkdir(parents=True)
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    # A pair of scenarios has stages of its own, which no scenario has.
    document["stages"] = {name: one for name, one in document["stages"].items() if one["foreach"] == "${scenarios}"}
    (root / "dvc.yaml").write_text(yaml.safe_dump(document))
    (root / ".gitignore").write_text("/artifacts/\n/.recstill/\n")
    _git(root, "init", "-q", "-b", "main")
    _git(root, "config", "user.name", "Tess Ter")
    _git(root, "config", "user.email", "tess@example.org")
    history = History(root, versions, signing_key(root / ".recstill" / "keys"))
    stages: dict[str, dict[str, Any]] = {}
    locks = []
    for turn in range(versions):
        stages |= _stages(document["stages"], turn)
        locks.append((turn, dict(stages)))
    commits = _import_commits(history, locks)
    base = subprocess.run(["git", "rev-parse", "main"], cwd=root, check=True, capture_output=True, text=True).stdout
    attestations = {}
    for (turn, made), commit in zip(locks, commits, strict=True):
        attestations[turn] = _publish(history, turn, made, commit, base.strip())
    _import_tags(history, commits, attestations)
    _switches(history)
    _git(root, "reset", "-q", "--hard", "main")
    return history


def measure(history: History, say: Callable[[str], None] = print, *, repeats: int = 3) -> dict[str, float]:
    """Seconds of whole processes: ``trace_s`` and ``impact_s``, the slowest question's median each."""
    last = history.versions - 2
    name, version = History.of(last)
    with tempfile.TemporaryDirectory(prefix="recstill-") as scratch:
        found = {}
        questions = {
            "a model, renamed": f"artifacts/{name}/package/model.onnx",
            "weights of a student, by statements alone": f"artifacts/{name}/student/weights.safetensors",
            "a record of events": f"artifacts/{name}/events.parquet",
        }
        traces, impacts = [], []
        for title, path in questions.items():
            copy = Path(scratch) / f"copy-{len(traces)}.bin"
            copy.write_bytes(history.content(last, path))
            seconds, processor, found = _timed(history.root, repeats, "trace", str(copy), "--json")
            kinds = {node["role"] for node in found["chain"]}
            assert "events" in kinds, f"{title}: {sorted(kinds)}"
            assert not any("not attested" in node["labels"] for node in found["chain"]), title
            say(f"trace of {title}: {seconds:.2f} s ({processor:.2f} s of a core), {len(found['chain'])} runs")
            traces.append(seconds)
        for title, digits, least in (
            ("the first data set, which all others of its name started warm from", digest(name, 1, "dataset"), version),
            ("the newest data set", digest(name, version, "dataset"), 1),
        ):
            seconds, processor, found = _timed(history.root, repeats, "impact", digits, "--json")
            assert len(found["versions"]) >= least, f"{title}: {len(found['versions'])} versions"
            say(
                f"impact of {title}: {seconds:.2f} s ({processor:.2f} s of a core), {len(found['versions'])} versions, "
                f"{found['runs']} runs"
            )
            impacts.append(seconds)
    return {"trace_s": max(traces), "impact_s": max(impacts)}


def _timed(root: Path, repeats: int, *command: str) -> tuple[float, float, dict[str, Any]]:
    seconds, program = [], Path(sys.executable).parent / "recstill"
    for _ in range(repeats):
        started, used = time.perf_counter(), _used()
        done = subprocess.run([program, *command], cwd=root, capture_output=True, text=True, check=False)
        seconds.append((time.perf_counter() - started, _used() - used))
        if done.returncode:
            raise RuntimeError(f"recstill {' '.join(command)}: {done.stderr or done.stdout}")
    wall, processor = (statistics.median(one) for one in zip(*seconds, strict=True))
    return wall, processor, json.loads(done.stdout)


def _used() -> float:
    """Processor seconds of all child processes that have ended."""
    use = resource.getrusage(resource.RUSAGE_CHILDREN)
    return use.ru_utime + use.ru_stime


def _stages(document: Mapping[str, Any], turn: int) -> dict[str, dict[str, Any]]:
    """What a run of one scenario puts into the lock."""
    name, version = History.of(turn)
    made: dict[str, dict[str, Any]] = {}

    def entry(path: str) -> dict[str, Any]:
        if path.startswith("components/") or not path.startswith("artifacts/"):
            content = f"{path}, written {version // 50} times\n".encode()
            return {"path": path, "hash": "md5", "md5": _md5(content), "size": len(content)}
        files = _files(turn, path)
        if path.split("/")[2] not in _FOLDERS:
            return {"path": path, "hash": "md5", "md5": _md5(files[""]), "size": len(files[""])}
        names = {member: _md5(content) for member, content in files.items()}
        size = sum(len(content) for content in files.values())
        return {"path": path, "hash": "md5", "md5": listing_md5(listing(names)), "size": size, "nfiles": len(names)}

    for stage, body in ((stage, one["do"]) for stage, one in document.items()):
        paths = [
            str(one).replace("${key}", name).replace("${item.source.path}", "data/orders.csv") for one in body["deps"]
        ]
        outs = [
            next(iter(one)) if isinstance(one, dict) else one
            for part in ("outs", "metrics", "plots")
            for one in body.get(part) or ()
        ]
        keys = [one.replace("${key}", name) for one in body["params"]]
        made[f"{stage}@{name}"] = {
            "cmd": body["cmd"].replace("${key}", name),
            "deps": [entry(path) for path in sorted(paths)],
            "params": {"params.yaml": {key: _value(key, name, version) for key in sorted(keys)}},
            "outs": [entry(path.replace("${key}", name)) for path in sorted(outs)],
        }
    return made


def _value(key: str, name: str, version: int) -> Any:
    part = key.removeprefix(f"scenarios.{name}").removeprefix(".")
    as_of = time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(_FIRST + version * _DAY))
    source = {"kind": "table", "path": "data/orders.csv", "as_of": as_of}
    teacher = {"members": 1, "network": {"dim": 64, "blocks": 2, "heads": 2}, "optimization": {"max_epochs": 24}}
    warm = {"warm_start": digest(name, version - 1, "teacher")} if version > 1 else {}
    values = {"source": source, "teacher": teacher | warm, "seed": 0, "task": "next_item"}
    return values.get(part, values if not part else {"k": 64})


def _files(turn: int, path: str) -> dict[str, bytes]:
    kind = path.split("/")[2]
    if kind not in _FOLDERS:
        return {"": History.content(turn, path)}
    return {member: History.content(turn, f"{path}/{member}") for member in _MEMBERS.get(kind, _NETWORK)}


def _manifest(name: str, version: int) -> dict[str, Any]:
    part = _sha(f"soft labels of {name}@v{version}".encode())
    return {
        "id": digest(name, version, "soft_labels"),
        "teacher": digest(name, version, "teacher"),
        "dataset": digest(name, version, "dataset"),
        "parts": [{"name": f"part-00000-{part[:16]}.safetensors", "sha256": part}],
    }


def _lock(stages: Mapping[str, Any]) -> bytes:
    document = {"schema": "2.0", "stages": {address: stages[address] for address in sorted(stages)}}
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    return bytes(yaml.dump(document, Dumper=dumper, sort_keys=False, width=10**6, encoding="utf-8"))


def _import_commits(history: History, locks: list[tuple[int, dict[str, Any]]]) -> list[str]:
    """A base on ``main``, and a branch a version, each with its lock; the names of the commits."""
    root, marks = history.root, history.root / ".git" / "marks"
    files = ("dvc.yaml", ".gitignore")

    def stream() -> Iterator[bytes]:
        yield _commit("refs/heads/main", 1, _FIRST, "a checkout", {name: (root / name).read_bytes() for name in files})
        for number, (turn, stages) in enumerate(locks):
            name, version = History.of(turn)
            key = _sha(f"run of {name}@v{version}".encode())[:12]
            lock = {"dvc.lock": _lock(stages)}
            when = _FIRST + (turn + 1) * _DAY
            yield _commit(
                f"refs/heads/recstill/{name}/{key}", number + 2, when, f"{name}: a finished run", lock, parent=":1"
            )

    _fast_import(root, stream(), f"--export-marks={marks}")
    named = dict(line.split() for line in marks.read_text().splitlines())
    return [named[f":{number + 2}"] for number in range(len(locks))]


def _import_tags(history: History, commits: list[str], attestations: Mapping[int, str]) -> None:
    def stream() -> Iterator[bytes]:
        for turn, commit in enumerate(commits):
            name, version = History.of(turn)
            message = f"{name}@v{version}\n\nattestation: sha256:{attestations[turn]}\n".encode()
            who = f"tagger Tess Ter <tess@example.org> {_FIRST + (turn + 1) * _DAY} +0000"
            yield f"tag {name}@v{version}.0.0\nfrom {commit}\n{who}\ndata {len(message)}\n".encode() + message

    _fast_import(history.root, stream())


def _commit(ref: str, mark: int, when: int, message: str, files: Mapping[str, bytes], *, parent: str = "") -> bytes:
    who = f"Tess Ter <tess@example.org> {when} +0000"
    head = f"commit {ref}\nmark :{mark}\nauthor {who}\ncommitter {who}\ndata {len(message)}\n{message}\n"
    if parent:
        head += f"from {parent}\n"
    body = b"".join(
        f"M 100644 inline {path}\ndata {len(content)}\n".encode() + content + b"\n" for path, content in files.items()
    )
    return head.encode() + body


def _fast_import(root: Path, stream: Iterator[bytes], *options: str) -> None:
    with subprocess.Popen(["git", "fast-import", "--quiet", *options], cwd=root, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for piece in stream:
            process.stdin.write(piece)
        process.stdin.close()
        if process.wait():
            raise RuntimeError("git fast-import failed")


def _publish(history: History, turn: int, stages: Mapping[str, Any], commit: str, base: str) -> str:
    """Statements, bundle, manifest and release of a version; SHA-256 of its attestation."""
    name, version = History.of(turn)
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(_FIRST + (turn + 1) * _DAY))
    store = history.root / ".recstill" / "store"
    own = {address: entry for address, entry in stages.items() if address.endswith(f"@{name}")}
    statements = [_statement(history, turn, address, entry, when=when, base=base) for address, entry in own.items()]
    for one in statements:
        _write(store / statement_key(name, one.entry), one.envelope)
    manifest = _manifest(name, version)
    _write(store / "soft-labels" / manifest["id"] / "manifest.json", _json(manifest))
    folder = f"artifacts/{name}/package"
    files = {member: history.content(turn, f"{folder}/{member}") for member in _MEMBERS["package"]}
    package = _sha(files["package.json"])
    for member, content in files.items():
        _write(store / "packages" / package / member, content)
    gate = _json({"passed": True, "kind": "champion", "challenger": {"ndcg10": 0.1}, "checks": [], "reasons": []})
    files |= {"gate.json": gate, "provenance.intoto.jsonl": bundle(statements)}
    release = store / "releases" / name / f"v{version}"
    _write(release / f"gate-{_sha(gate)}.json", gate)
    lines = files["provenance.intoto.jsonl"]
    _write(release / f"provenance-{_sha(lines)}.intoto.jsonl", lines)
    kinds = ("source", "dataset", "teacher", "student", "pruned", "soft_labels")
    lineage = {kind: digest(name, version, kind) for kind in kinds} | {"commit": commit}
    lineage["variant"] = _sha(history.content(turn, f"artifacts/{name}/quantized/pruned.int4_table4.onnx"))
    predicate = {
        **{"name": name, "version": version, "package": package, "commit": commit, "created": when},
        **{"sizes": {file: len(content) for file, content in files.items()}, "lineage": lineage},
        "gate": {
            "passed": True,
            "kind": "champion",
            "challenger": {"ndcg10": 0.1},
            "champion": None,
            "difference": None,
        },
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file, "digest": {"sha256": _sha(content)}} for file, content in sorted(files.items())],
        "predicateType": "urn:recstill:release:1",
        "predicate": predicate,
    }
    envelope = sign(_json(statement), "application/vnd.in-toto+json", history.key)
    _write(release / "attestation.dsse.json", envelope)
    return _sha(envelope)


def _statement(
    history: History, turn: int, address: str, entry: Mapping[str, Any], *, when: str, base: str
) -> StageStatement:
    name, version = History.of(turn)
    facts = of_lock_entry(address, entry)
    subjects, digests = {}, {}
    for path in facts["outputs"]:
        for member, content in _files(turn, path).items():
            where = f"{path}/{member}" if member else path
            subjects[where] = FileDigests(_sha(content), _md5(content), len(content))
        kind = path.split("/")[2].partition(".")[0]
        if kind in (*_DIGESTS, "soft_labels"):
            digests[kind] = digest(name, version, kind)
    statement = StageStatement(
        **facts,
        subjects=subjects,
        commit=base,
        dirty=False,
        who="Tess Ter <tess@example.org>",
        started=when,
        finished=when,
        attached="during the run",
        digests=digests,
        metrics={"epochs": 3, "validation_ndcg10": 0.1},
    )
    return signed(statement, history.key)


def _switches(history: History) -> None:
    """Every tenth version went live, once."""
    from components.serving.pointer import switch
    from components.serving.releases import read_release
    from components.storage.folder_store import FolderStore

    store = FolderStore(history.root / ".recstill" / "store")
    numbers = dict.fromkeys(NAMES, 0)
    for turn in range(0, history.versions, 10):
        for name, version in (History.of(turn), History.of(min(turn + 1, history.versions - 1))):
            release = read_release(store, name, version, (history.key.public,))
            if release.name == name:
                said = {"expected": numbers[name], "kind": "deploy", "who": "Tess Ter", "why": ""}
                switch(store, name, release, **said, key=history.key, keys=(history.key.public,))
                numbers[name] += 1


def _git(root: Path, *command: str) -> None:
    subprocess.run(["git", *command], cwd=root, check=True, stdout=subprocess.DEVNULL)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _json(record: Any) -> bytes:
    return (json.dumps(record, indent=2, sort_keys=True) + "\n").encode()


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def main() -> None:
    """Build, measure, print ``name=value`` lines."""
    versions = int(os.environ.get("VERSIONS", "500"))
    with tempfile.TemporaryDirectory(prefix="recstill-") as folder:
        started = time.perf_counter()
        history = build(Path(folder), versions)
        print(f"{versions} versions built in {time.perf_counter() - started:.0f} s")
        for name, value in measure(history).items():
            print(f"{name}={value:.2f}")


if __name__ == "__main__":
    main()
