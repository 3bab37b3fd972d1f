"""Whatever is done to a byte that a registered version needs is found and named; what is whole is left in peace."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from flows.auditing.findings import Finding
from flows.auditing.verifying import verify
from tests.unit.flows.auditing.damages import Damage, seeded_damages
from tests.unit.flows.auditing.many_versions import copy_of, plain_environment
from tests.unit.flows.auditing.naive import sizes_only

COUNT = 30


def naming(damage: Damage, findings: list[Finding]) -> list[Finding]:
    """The findings that name the damaged object."""
    return [one for one in findings if any(name in f"{one.object} {one.problem}" for name in damage.named)]


def found_of(
    root: Path, scratch: Path, damages: list[Damage], look: Callable[[Path], list[Finding]]
) -> tuple[list[Damage], list[str]]:
    """The damages that are found, and findings about what was not damaged; each damage has a copy to itself."""
    found, false_alarms = [], []
    before = Path.cwd()
    for number, damage in enumerate(damages):
        copy = copy_of(root, scratch / f"copy-{number}")
        damage.apply(copy)
        os.chdir(copy)
        findings = look(copy)
        os.chdir(before)
        hits = naming(damage, findings)
        if hits:
            found.append(damage)
        false_alarms += [f"{damage}: {one}" for one in findings if one not in hits]
        shutil.rmtree(copy)
    return found, false_alarms


def test_every_damage_is_found_and_named_and_nothing_else_is(registered_checkout: Path, tmp_path: Path) -> None:
    damages = seeded_damages(registered_checkout, COUNT)
    with plain_environment():
        found, false_alarms = found_of(registered_checkout, tmp_path, damages, lambda copy: verify(copy).damaged)
    assert [str(damage) for damage in damages if damage not in found] == []
    assert false_alarms == []


def test_a_clean_copy_has_no_finding_not_even_a_note(checkout: Path) -> None:
    assert verify(checkout).findings == ()


def test_one_that_looks_at_names_and_sizes_fails_the_same_test(registered_checkout: Path, tmp_path: Path) -> None:
    damages = seeded_damages(registered_checkout, COUNT)
    with plain_environment():
        found, _ = found_of(registered_checkout, tmp_path, damages, sizes_only)
        clean = sizes_only(registered_checkout)
    assert clean == []
    assert {damage.kind for damage in found} & {"cut", "delete"}, "it is not blind to everything"
    assert not {damage.kind for damage in found} & {"flip", "edited lock", "signed by another key"}
    assert len(found) < len(damages) / 2


def test_the_same_seed_gives_the_same_damages(registered_checkout: Path) -> None:
    first = [str(damage) for damage in seeded_damages(registered_checkout, COUNT)]
    assert first == [str(damage) for damage in seeded_damages(registered_checkout, COUNT)]
    assert first != [str(damage) for damage in seeded_damages(registered_checkout, COUNT, seed=1)]
    assert len({damage.partition(" ")[0] for damage in first}) > 5
