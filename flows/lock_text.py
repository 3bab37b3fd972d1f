"""Write the records of some stages into ``dvc.lock`` and leave the rest of the file as it is.

DVC reads and writes the whole file after every stage, with a parser that keeps comments: a lock has none, and at four
scenarios that took longer than many a stage. Here a record is written by the same dumper, so the bytes are DVC's, but
alone, in the place of the one before it.
"""

from __future__ import annotations

import io
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from components.storage.atomic import new_file

LOCK = "dvc.lock"
_HEAD = "schema: '2.0'\nstages:\n"
_RECORD = re.compile(r"^  (\S+):\n(?:    .*\n)+", re.MULTILINE)
_ALIAS = re.compile(r"(?:: |- )[&*]id\d")  # the dumper's way to write one object twice, which may lie in two records

Modifying = Callable[..., AbstractContextManager[Any]]


def modifying_records(whole: Modifying) -> Modifying:
    """A context manager in the place of DVC's ``modify_yaml``: it gives the content, and writes what was made of it.

    Args:
        whole: DVC's own, for all files but a lock, and for a lock that looks unlike those that it writes.
    """

    @contextmanager
    def modify(path: str | os.PathLike[str], fs: Any = None) -> Iterator[Any]:
        texts = records_of(Path(path)) if Path(path).name == LOCK else None
        content = None if texts is None else _parsed(_joined(texts))
        if texts is None or content is None:
            with whole(path, fs=fs) as data:
                yield data
            return
        before = dict(content["stages"])
        yield content
        after = content["stages"]
        texts |= _written({name: record for name, record in after.items() if record is not before.get(name)})
        if [*content] != ["schema", "stages"] or any(map(_ALIAS.search, texts.values())):
            with whole(path, fs=fs) as data:
                data.clear()
                data.update(content)
            return
        with new_file(Path(path)) as temporary:
            temporary.write_bytes(_joined({name: texts[name] for name in after}).encode("utf-8"))

    return modify


def records_of(path: Path) -> dict[str, str] | None:
    """The lines of each record by the name of its stage; None where there is no such file as DVC writes it."""
    try:
        text = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = {match[1]: match[0] for match in _RECORD.finditer(text)}
    return found if found and _joined(found) == text else None


def _joined(texts: Mapping[str, str]) -> str:
    return _HEAD + "".join(texts.values())


def _parsed(text: str) -> Any:
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return None


def _written(records: Mapping[str, Any]) -> dict[str, str]:
    """Each record as DVC's dumper writes it into the whole file."""
    dumper = YAML()
    dumper.default_flow_style = False
    dumper.Representer.add_representer(OrderedDict, dumper.Representer.represent_dict)
    written = {}
    for name, record in records.items():
        stream = io.StringIO()
        dumper.dump({"stages": {name: record}}, stream)
        written[name] = stream.getvalue().removeprefix("stages:\n")
    return written
