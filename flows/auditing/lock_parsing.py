"""``dvc.lock`` as runs of stages: fast for the form that DVC writes, by YAML for any other.

A history of hundreds of versions is tens of megabytes of YAML, which takes a YAML parser minutes. DVC writes one form
only: four or five lines a file, in a fixed order. That form is read by regular expressions that have to account for
every line; a single line of another form, and the whole file goes to the YAML parser. Both give the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import yaml

from components.errors import IntegrityError
from components.provenance.stage_run import entry_id
from components.settings.reading import PARAMS_FILE

ARTIFACTS = "artifacts/"
# A plain word that YAML takes for text: it begins with a letter, and is none of the words with a meaning.
_WORDS = "(?!(?i:true|false|yes|no|on|off|null)\n)"
_PLAIN = rf"{_WORDS}[A-Za-z][A-Za-z0-9_./@=+-]*"
# YAML makes numbers of digests that happen to look like one, unless DVC has quoted them.
_NO_NUMBER = r"(?!(?:[0-9]+|0b[01]+)\n)"
_ENTRY = re.compile(
    rf"^    - path: ({_PLAIN})\n      hash: md5\n      md5: {_NO_NUMBER}('?)([0-9a-f]{{32}}(?:\.dir)?)\2\n"
    r"      size: (0|[1-9][0-9]*)\n(?:      nfiles: (0|[1-9][0-9]*)\n)?".encode(),
    re.MULTILINE,
)
_SECTION = r"(?:    - [^\n]*\n|      [^\n]*\n)+"
_BLOCK = re.compile(
    rf"  ({_PLAIN}):\n    cmd: ({_WORDS}[A-Za-z][A-Za-z0-9_./@=+ -]*[A-Za-z0-9])\n(?:    deps:\n({_SECTION}))?"
    rf"(?:    params:\n((?:      [^\n]*\n)+))?(?:    outs:\n({_SECTION}))?".encode()
)
_HEAD = re.compile(rb"schema: '2\.0'\nstages:\n(?=  \S)")
_FIRST_LINE = b":\n    cmd: "
_PATH = re.compile(rb"^ +path: '?([^'\n]+)'?$", re.MULTILINE)
_STARTED = re.compile(rb"^ +warm_start: ['\"]?([0-9a-f]{64})['\"]?$", re.MULTILINE)
_CODE = b"    - path: components/"
# Anchors and aliases reach from one stage into another.
_ANCHOR = re.compile(rb" [&*][A-Za-z0-9]")
_WARM = re.compile(r"[0-9a-f]{64}")


Row = tuple[bytes, ...] | Mapping[str, Any]
"""A file as it was found: path, quote, MD5, bytes, files in it; or the fields that YAML gave."""
Rows = Sequence[Row]


class FileEntry(NamedTuple):
    """A file or folder that a lock names.

    Attributes:
        path: From the checkout's root, or an address.
        md5: MD5 of its bytes; of a folder that of its listing, with ``.dir`` behind. Of what DVC knows
            by another mark, that one: ``etag:...``.
        size: Bytes; None where they are not recorded.
        fields: All fields as they were parsed.
    """

    path: str
    md5: str
    size: int | None
    fields: Mapping[str, Any]


class StageRun:
    """One stage as one lock records it. Equal records of several locks are one object.

    What a lock lists is kept as it was found and turned into objects when somebody asks: most of it is code, and most
    questions are about data.

    Attributes:
        address: ``stage@scenario``.
        cmd: What was run.
    """

    def __init__(self, address: str, cmd: Any, deps: Rows, params: bytes | Mapping[str, Any], outs: Rows) -> None:
        self.address, self.cmd = address, cmd
        self._deps, self._params, self._outs = deps, params, outs

    def __repr__(self) -> str:
        return f"StageRun({self.address}, {self.entry[:12]})"

    @property
    def stage(self) -> str:
        """Name of the stage."""
        return self.address.partition("@")[0]

    @property
    def scenario(self) -> str:
        """Name of the scenario."""
        return self.address.partition("@")[2]

    @cached_property
    def params(self) -> dict[str, Any]:
        """Parameters by file, as recorded: ``{"params.yaml": {"scenarios.x.seed": 0}}``."""
        if isinstance(self._params, bytes):
            return dict(_yaml(self._params) or {})
        return dict(self._params)

    @property
    def settings(self) -> dict[str, Any]:
        """The parameters of params.yaml, below their scenario: ``{"seed": 0}``; the whole scenario is that itself."""
        prefix = f"scenarios.{self.scenario}"
        found: dict[str, Any] = {}
        for key, value in (self.params.get(PARAMS_FILE) or {}).items():
            if key == prefix and isinstance(value, dict):
                found.update(value)
            else:
                found[key.removeprefix(f"{prefix}.")] = value
        return found

    @cached_property
    def entry(self) -> str:
        """What names the record: SHA-256 over command, dependencies, parameters and outputs."""
        return entry_id(self.record)

    @cached_property
    def deps(self) -> tuple[FileEntry, ...]:
        """All files that it depends on, as the lock lists them."""
        return tuple(_entry(row) for row in self._deps)

    @cached_property
    def outs(self) -> tuple[FileEntry, ...]:
        """All files and folders that it made, as the lock lists them."""
        return tuple(_entry(row) for row in self._outs)

    @property
    def record(self) -> dict[str, Any]:
        """The stage as the lock has it."""
        sections = {
            "deps": [dict(one.fields) for one in self.deps],
            "params": self.params,
            "outs": [dict(one.fields) for one in self.outs],
        }
        return {"cmd": self.cmd, **{key: value for key, value in sections.items() if value}}

    @cached_property
    def inputs(self) -> dict[str, str]:
        """MD5 by path of the data it read: artifacts, and the source."""
        source = f"{self._source}/"
        return {
            path: md5
            for path, md5 in map(_named, self._deps)
            if path.startswith(ARTIFACTS) or (len(source) > 1 and f"{path}/".startswith(source))
        }

    @cached_property
    def code(self) -> dict[str, str]:
        """MD5 by path of the code it ran."""
        return {
            path: md5
            for path, md5 in map(_named, self._deps)
            if path.endswith(".py") or (path not in self.inputs and not path.startswith(ARTIFACTS))
        }

    @cached_property
    def outputs(self) -> dict[str, str]:
        """MD5 by path of what it made."""
        return dict(map(_named, self._outs))

    @property
    def sizes(self) -> dict[str, int | None]:
        """Bytes by path, of data read and made."""
        return {one.path: one.size for one in (*self.deps, *self.outs)}

    @property
    def warm_start(self) -> str | None:
        """Digest of the teacher that training started from; None when it started anew."""
        if isinstance(self._params, bytes) and not _STARTED.search(self._params):
            return None
        for value in self.settings.values():
            found = value.get("warm_start") if isinstance(value, dict) else None
            if isinstance(found, str) and _WARM.fullmatch(found):
                return found
        return None

    @property
    def _source(self) -> str:
        """``source.path`` where it is among the parameters."""
        if isinstance(self._params, bytes) and b'path: "' not in self._params and b"''" not in self._params:
            # Most stages read no source; to parse the parameters of all would take longer than all the rest.
            told = tuple(one.decode().rstrip("/") for one in _PATH.findall(self._params))
            if not any(path.startswith(told) for path, _ in map(_named, self._deps)):
                return ""
        source = self.settings.get("source")
        return str(source.get("path") or "").rstrip("/") if isinstance(source, dict) else ""


class Known(NamedTuple):
    """What was parsed before, by its text: locks of one history repeat each other.

    Attributes:
        stages: Whole stages.
        code: The files of ``components/`` that a stage depends on.
    """

    stages: dict[bytes, StageRun]
    code: dict[bytes, Rows]

    @classmethod
    def nothing(cls) -> Known:
        """At the beginning."""
        return cls({}, {})


def parse_lock(content: bytes, known: Known | None = None) -> list[StageRun]:
    """The stages of a lock, in its order.

    Args:
        content: The bytes of ``dvc.lock``.
        known: What it has is not parsed again, what is new is put into it.

    Raises:
        IntegrityError: It is no lock.
    """
    known = Known.nothing() if known is None else known
    if not (head := _HEAD.match(content)):
        return parse_yaml(content)
    starts = _starts(content, head.end())
    runs = []
    for start, end in zip(starts, [*starts[1:], len(content)], strict=True):
        block = content[start:end]
        run = known.stages.get(block) or _fast(block, known.code)
        if run is None:
            return parse_yaml(content)
        known.stages[block] = run
        runs.append(run)
    return runs if len({run.address for run in runs}) == len(runs) else parse_yaml(content)


def _starts(content: bytes, first: int) -> list[int]:
    """Where stages begin: at the line before their command. A stage of another form makes its block one."""
    starts, position = [], content.find(_FIRST_LINE, first)
    while position >= 0:
        starts.append(content.rfind(b"\n", 0, position) + 1)
        position = content.find(_FIRST_LINE, position + 1)
    return starts if starts[:1] == [first] else [first, *starts]


def parse_yaml(content: bytes) -> list[StageRun]:
    """The stages of a lock of any form that YAML allows.

    Raises:
        IntegrityError: It is no lock.
    """
    try:
        stages = (_yaml(content) or {}).get("stages") or {}
        return [
            StageRun(
                str(address),
                stage["cmd"],
                _checked(stage.get("deps")),
                stage.get("params") or {},
                _checked(stage.get("outs")),
            )
            for address, stage in stages.items()
        ]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, UnicodeDecodeError):
        raise IntegrityError("dvc.lock is damaged: it is not of the form that DVC writes") from None


def _fast(block: bytes, code: dict[bytes, Rows]) -> StageRun | None:
    """A stage by its text; None when it is not of DVC's form."""
    found = _BLOCK.fullmatch(block)
    if found is None or _ANCHOR.search(block):
        return None
    deps, outs = _deps(found[3] or b"", code), _rows(found[5] or b"")
    if deps is None or outs is None:
        return None
    return StageRun(found[1].decode(), found[2].decode(), deps, found[4] or {}, outs)


def _deps(section: bytes, code: dict[bytes, Rows]) -> Rows | None:
    data, mark, rest = section.partition(_CODE)
    tail = mark + rest
    if tail not in code:
        rows = _rows(tail)
        if rows is None:
            return None
        code[tail] = rows
    rows = _rows(data)
    return None if rows is None else [*rows, *code[tail]]


def _rows(section: bytes) -> Rows | None:
    """The files of a section; None when a line of it is of another form."""
    rows: list[tuple[bytes, ...]] = _ENTRY.findall(section)
    lines = 4 * len(rows) + sum(1 for row in rows if row[4])
    return rows if lines == section.count(b"\n") else None


def _checked(rows: Any) -> list[dict[str, Any]]:
    return [{**row, "path": str(row["path"])} for row in rows or ()]


def _entry(row: Row) -> FileEntry:
    if isinstance(row, tuple):
        path, _, md5, size, nfiles = row
        fields: dict[str, Any] = {"path": path.decode(), "hash": "md5", "md5": md5.decode(), "size": int(size)}
        if nfiles:
            fields["nfiles"] = int(nfiles)
    else:
        fields = dict(row.items())
    measured = fields.get("size")
    return FileEntry(fields["path"], _named(row)[1], measured if isinstance(measured, int) else None, fields)


def _named(row: Row) -> tuple[str, str]:
    """Path and digest."""
    if isinstance(row, tuple):
        return row[0].decode(), row[2].decode()
    if "md5" in row:
        return row["path"], str(row["md5"])
    return row["path"], next((f"{kind}:{row[kind]}" for kind in ("etag", "checksum") if row.get(kind)), "")


def _yaml(content: bytes) -> Any:
    return getattr(yaml, "CSafeLoader", yaml.SafeLoader)(content).get_single_data()
