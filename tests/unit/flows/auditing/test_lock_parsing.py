from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from components.errors import IntegrityError
from flows.auditing.lock_parsing import Known, parse_lock, parse_yaml

HEX = st.text("0123456789abcdef", min_size=32, max_size=32)
# Numbers in disguise, words with a meaning, and names that need quotes.
MD5 = st.one_of(HEX, st.builds("{}.dir".format, HEX), st.text("0123456789", min_size=32, max_size=32))
PATH = st.one_of(
    st.sampled_from(["yes", "null", "On", "components/a.py", "artifacts/tiny/dataset", "größe", "a b", "x: y", "12e3"]),
    st.text("abcA1_./-@", min_size=1, max_size=12),
)
FILE = st.fixed_dictionaries(
    {"path": PATH, "hash": st.just("md5"), "md5": MD5, "size": st.integers(0, 10**12)},
    optional={"nfiles": st.integers(0, 99)},
)
ODD = st.fixed_dictionaries({"path": PATH, "etag": HEX}, optional={"isexec": st.booleans()})
VALUE = st.recursive(
    st.one_of(st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False), st.text()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.text("abc", min_size=1), inner, max_size=2)
    ),
    max_leaves=4,
)
STAGE = st.fixed_dictionaries(
    {"cmd": st.one_of(st.sampled_from(["python -m components.stages.prepare tiny", "true", "a: b"]), st.text())},
    optional={
        "deps": st.lists(st.one_of(FILE, FILE, ODD), min_size=1, max_size=4),
        "params": st.dictionaries(
            st.just("params.yaml"), st.dictionaries(st.text("abc.", min_size=1), VALUE, min_size=1), min_size=1
        ),
        "outs": st.lists(FILE, min_size=1, max_size=3),
    },
)
LOCK = st.dictionaries(st.sampled_from([f"{name}@tiny" for name in "abcde"] + ["yes"]), STAGE, min_size=1, max_size=3)


def written(stages: dict[str, Any]) -> bytes:
    """As DVC writes it: block style, in order, wide."""
    document = {"schema": "2.0", "stages": stages}
    return yaml.safe_dump(document, sort_keys=False, width=10**6, allow_unicode=True).encode()


@settings(max_examples=300, deadline=None)
@given(LOCK)
def test_every_lock_is_read_as_a_parser_of_yaml_reads_it(stages: dict[str, Any]) -> None:
    content = written(stages)
    fast, slow = parse_lock(content), parse_yaml(content)
    assert [run.address for run in fast] == [run.address for run in slow] == list(stages)
    assert [run.record for run in fast] == [run.record for run in slow]
    assert [run.entry for run in fast] == [run.entry for run in slow]
    assert [(run.inputs, run.code, run.outputs, run.sizes) for run in fast] == [
        (run.inputs, run.code, run.outputs, run.sizes) for run in slow
    ]


def stage(**more: Any) -> dict[str, Any]:
    made = {"path": "artifacts/tiny/dataset", "hash": "md5", "md5": "ab" * 16 + ".dir", "size": 5, "nfiles": 2}
    read = {"path": "components/stages/prepare.py", "hash": "md5", "md5": "cd" * 16, "size": 7}
    return {"cmd": "python -m components.stages.prepare tiny", "deps": [read], "outs": [made], **more}


def test_a_lock_as_dvc_writes_it_needs_no_parser_of_yaml(monkeypatch: pytest.MonkeyPatch) -> None:
    content = written({"prepare@tiny": stage()})
    monkeypatch.setattr("flows.auditing.lock_parsing._yaml", lambda _: pytest.fail("parsed as YAML"))
    (run,) = parse_lock(content)
    assert run.outputs == {"artifacts/tiny/dataset": "ab" * 16 + ".dir"}


@pytest.mark.parametrize(
    "spoiled",
    [
        (b"size: 7", b"size: 7\n      isexec: true"),
        (b"      size: 7\n", b""),
        (b"hash: md5\n      md5: cd", b"md5: cd"),
        (b"    outs:", b"    frozen: true\n    outs:"),
        (b"md5: " + b"cd" * 16, b"md5: '" + b"cd" * 16 + b"'"),
    ],
)
def test_a_single_line_of_another_form_is_not_passed_over(spoiled: tuple[bytes, bytes]) -> None:
    content = written({"prepare@tiny": stage()}).replace(*spoiled)
    assert [run.record for run in parse_lock(content)] == [run.record for run in parse_yaml(content)]
    assert [run.inputs for run in parse_lock(content)] == [run.inputs for run in parse_yaml(content)]


def test_stages_that_repeat_are_one_object_and_others_are_not_mistaken_for_them() -> None:
    known = Known.nothing()
    one = parse_lock(written({"prepare@tiny": stage()}), known)
    same = parse_lock(written({"prepare@tiny": stage(), "other@tiny": stage()}), known)
    another = parse_lock(written({"prepare@tiny": stage(params={"params.yaml": {"scenarios.tiny.seed": 1}})}), known)
    assert one[0] is same[0] is not another[0]
    assert len({run.entry for run in (*one, *same, *another)}) == 2


def test_the_source_counts_as_data_and_modules_as_code_the_warm_start_as_what_it_is() -> None:
    source = {"kind": "table", "path": "data/orders"}
    deps = [
        {"path": f"data/{name}", "hash": "md5", "md5": name[-1] * 32, "size": 1} for name in ("orders/a", "orders/b")
    ]
    deps.append({"path": "data/orders-of-others", "hash": "md5", "md5": "f" * 32, "size": 1})
    params = {"params.yaml": {"scenarios.tiny.source": source, "scenarios.tiny.teacher": {"warm_start": "9" * 64}}}
    (run,) = parse_lock(written({"ingest@tiny": stage(deps=deps, params=params)}))
    assert set(run.inputs) == {"data/orders/a", "data/orders/b"}
    assert set(run.code) == {"data/orders-of-others"}
    assert run.warm_start == "9" * 64
    assert run.settings["source"] == source


@pytest.mark.parametrize("content", [b"", b"x", b"stages: [", b"\xff\xfe", b"schema: '2.0'\nstages:\n  a@b: 7\n"])
def test_what_is_no_lock_is_refused_or_empty(content: bytes) -> None:
    try:
        assert parse_lock(content) == []
    except IntegrityError as error:
        assert "damaged" in error.message
