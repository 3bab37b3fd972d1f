"""The form of a stage's statement: in-toto Statement v1 with the predicate SLSA provenance v1, written and read.

Forms: https://github.com/in-toto/attestation/tree/main/spec/v1 (Statement, DigestSet) and
https://slsa.dev/spec/v1.0/provenance. Fields of Recstill's own are extension fields, ``recstill_*``, which the
specification has everybody else ignore. docs/audit.md explains the build type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, get_args

from components.provenance.stage_run import FOLDER, Attached, FileDigests, StageStatement, is_code, plain

STATEMENT = "https://in-toto.io/Statement/v1"
SLSA = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:recstill:stage:1"
BUILDER = "urn:recstill:builder:1"
REQUIREMENTS = "requirements.lock"
SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_REPOSITORY = "repository"
_DVC = "dvc_md5"


def build(statement: StageStatement) -> dict[str, Any]:
    """The in-toto Statement, ready to be signed; the same facts give the same one."""
    definition: dict[str, Any] = {
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "scenario": statement.scenario,
            "stage": statement.stage,
            "cmd": statement.cmd,
            "params": statement.params,
        },
        "resolvedDependencies": _dependencies(statement),
    }
    if statement.environment:
        definition["internalParameters"] = dict(statement.environment)
    times = {"startedOn": statement.started, "finishedOn": statement.finished}
    run: dict[str, Any] = {
        "builder": {"id": BUILDER},
        "metadata": {name: time for name, time in times.items() if time},
    }
    if statement.byproducts:
        run["byproducts"] = [
            {"name": key, "digest": {"sha256": sha256}} for key, sha256 in sorted(statement.byproducts.items())
        ]
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": path, "digest": {"md5": one.md5, "sha256": one.sha256}, "annotations": {"bytes": one.bytes}}
            for path, one in sorted(statement.subjects.items())
        ],
        "predicateType": SLSA,
        "predicate": plain(
            {
                "buildDefinition": definition,
                "runDetails": run,
                "recstill_entry": statement.entry,
                "recstill_outputs": statement.outputs,
                "recstill_attached": statement.attached,
                "recstill_dirty": statement.dirty,
                "recstill_who": statement.who,
                "recstill_digests": statement.digests,
                "recstill_metrics": statement.metrics,
            }
        ),
    }


def parsed(document: Mapping[str, Any]) -> StageStatement:
    """A statement without its signature.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It is not of this form.
    """
    predicate = document["predicate"]
    definition, run = predicate["buildDefinition"], predicate["runDetails"]
    kinds = (document["_type"], document["predicateType"], definition["buildType"])
    if kinds != (STATEMENT, SLSA, BUILD_TYPE) or predicate["recstill_attached"] not in get_args(Attached):
        raise ValueError
    given, metadata = definition["externalParameters"], run.get("metadata") or {}
    commit, requirements = "unknown", ""
    inputs: dict[str, str] = {}
    code: dict[str, str] = {}
    input_sha256: dict[str, str] = {}
    for one in definition.get("resolvedDependencies") or ():
        name, digest = str(one["name"]), one.get("digest") or {}
        if name == _REPOSITORY and "gitCommit" in digest:
            commit = str(digest["gitCommit"])
        elif name == REQUIREMENTS and set(digest) == {"sha256"}:
            requirements = str(digest["sha256"])
        elif is_code(name):
            code[name] = str(digest["md5"])
        else:
            inputs[name] = str(digest["md5"] if "md5" in digest else one["annotations"][_DVC])
            if sha256 := digest.get("sha256") or digest.get("dirHash"):
                input_sha256[name] = str(sha256)
    subjects = {
        _inside(one["name"]): FileDigests(
            str(one["digest"]["sha256"]), str(one["digest"]["md5"]), int(one["annotations"]["bytes"])
        )
        for one in document["subject"]
    }
    digests = [one.sha256 for one in subjects.values()] + [str(predicate["recstill_entry"])]
    if not subjects or not all(SHA256.fullmatch(digest) for digest in digests):
        raise ValueError
    return StageStatement(
        scenario=str(given["scenario"]),
        stage=str(given["stage"]),
        entry=str(predicate["recstill_entry"]),
        subjects=subjects,
        outputs=_texts(predicate["recstill_outputs"]),
        inputs=inputs,
        code=code,
        params=dict(given["params"]),
        cmd=str(given["cmd"]),
        commit=commit,
        dirty=predicate["recstill_dirty"],
        who=str(predicate["recstill_who"]),
        started=str(metadata.get("startedOn") or ""),
        finished=str(metadata.get("finishedOn") or ""),
        attached=predicate["recstill_attached"],
        digests=_texts(predicate["recstill_digests"]),
        metrics=dict(predicate["recstill_metrics"]),
        input_sha256=input_sha256,
        requirements=requirements,
        environment=_texts(definition.get("internalParameters") or {}),
        byproducts={str(one["name"]): str(one["digest"]["sha256"]) for one in run.get("byproducts") or ()},
    )


def _dependencies(statement: StageStatement) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if _is_commit(statement.commit):
        found.append({"name": _REPOSITORY, "digest": {"gitCommit": statement.commit}})
    if statement.requirements:
        found.append({"name": REQUIREMENTS, "digest": {"sha256": statement.requirements}})
    found += [{"name": path, "digest": {"md5": md5}} for path, md5 in sorted(statement.code.items())]
    for path, mark in sorted(statement.inputs.items()):
        one: dict[str, Any] = {"name": path, "uri": path} if "://" in path else {"name": path}
        digest = {"md5": mark} if _MD5.fullmatch(mark) else {}
        if path in statement.input_sha256:
            digest["dirHash" if mark.endswith(FOLDER) else "sha256"] = statement.input_sha256[path]
        if digest:
            one["digest"] = digest
        else:  # a descriptor has to have one of digest, uri, content
            one.setdefault("uri", path)
        if "md5" not in digest:
            one["annotations"] = {_DVC: mark}
        found.append(one)
    return found


def _inside(path: Any) -> str:
    """A path of a subject, when it lies in the checkout."""
    pure = PurePosixPath(str(path))
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise ValueError
    return str(path)


def _texts(record: Mapping[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in record.items()}


def _is_commit(commit: str) -> bool:
    return re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", commit) is not None
