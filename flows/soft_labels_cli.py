"""``recstill soft-labels``: the caches of soft labels in the store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from components.errors import DataError, RecstillError
from components.soft_labels.inventory import SHOWN_ID

if TYPE_CHECKING:
    from components.soft_labels.inventory import CacheEntry
    from components.storage.contract import ObjectStore
    from flows.cache_use import Usage
    from flows.console import Console

app = typer.Typer(
    help="The teachers' soft labels in the store (RECSTILL_STORE): make, list, show, verify and remove them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CacheArgument = Annotated[
    str, typer.Argument(metavar="ID|SCENARIO", help="The first digits of a cache id (six or more), or a scenario.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


@app.command()
def build(
    scenario: Annotated[str, typer.Argument(help="A scenario of params.yaml.")],
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Score in this many processes of this machine, by Dask."),
    ] = None,
    dask: Annotated[
        str | None,
        typer.Option("--dask", metavar="ADDRESS", help="Score on the workers of a Dask scheduler: tcp://host:8786."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Although nothing has changed: check every part, score damaged and missing ones."),
    ] = False,
) -> None:
    """Score every training point of a scenario with its teacher, after all that the teacher is made from.

    Finished parts are kept, whoever wrote them. Without --workers and --dask, threads of one process score.
    """
    from flows.cache_tables import counted, size
    from flows.console import Console
    from flows.labelling import build as build_cache

    built = build_cache(_checkout(), scenario, workers=workers, dask=dask, force=force)
    outcome = "up to date" if built.outcome == "cached" else "complete"
    Console().say(
        f"cache {built.cache_id[:SHOWN_ID]} of {scenario} is {outcome}: {built.rows:,} rows in "
        f"{counted(built.parts, 'part')}, {size(built.bytes)}, {built.bytes / built.rows:.1f} bytes a row",
        style="bold",
    )


@app.command("list")
def list_caches(as_json: JsonOption = False) -> None:
    """Every cache in the store, whole or not: size, codec, teacher, data set, and what uses it."""
    from flows.cache_tables import cache_record, caches_table, counted, reference_record, size
    from flows.console import Console

    _, store, caches, usage = _survey()
    console = Console()
    unknown = [*usage.unknown(versions=True), *usage.unknown(versions=False)]
    if as_json:
        records = [cache_record(cache, usage) for cache in caches]
        unresolved = [reference_record(one) for one in unknown]
        console.document({"store": store.address, "caches": records, "unknown_references": unresolved})
        return
    if caches:
        console.table(caches_table(caches, usage))
    total = sum(entry.bytes for cache in caches for entry in cache.objects)
    console.say(f"{counted(len(caches), 'cache')}, {size(total)}, in {store.address}", style="bold")
    for cache in caches:
        if cache.problem:
            console.say(f"{_short(cache)} is damaged: {cache.problem}", style="red")
    if unknown:
        console.say(f"not known which cache they use: {', '.join(map(str, unknown))}", style="yellow")


@app.command()
def show(cache: CacheArgument, as_json: JsonOption = False) -> None:
    """All that the manifest of a cache says, where the cache lies, and what uses it."""
    from flows.cache_tables import cache_record, manifest_lines, parts_table
    from flows.console import Console

    root, store, caches, usage = _survey()
    found = _chosen(root, store, caches, cache)
    console = Console()
    if as_json:
        parts = [part.model_dump(mode="json") for part in found.manifest.parts] if found.manifest else []
        record = cache_record(found, usage) | {"place": f"{store.address}/{found.key('')}", "parts": parts}
        if found.manifest:
            record |= {"format": found.manifest.format, "rows_per_part": found.manifest.rows_per_part}
            record |= {name: found.manifest.mean(name) for name in ("top_mass", "kept_mass")}
        console.document(record)
        return
    for line in manifest_lines(found, usage, store.address):
        console.say(line)
    if found.manifest:
        console.say("")
        console.table(parts_table(found))


@app.command()
def verify(
    cache: Annotated[
        str | None, typer.Argument(metavar="[ID|SCENARIO]", help="The first digits of a cache id, or a scenario.")
    ] = None,
    all_caches: Annotated[bool, typer.Option("--all", help="Verify every cache in the store.")] = False,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Parts that are read and held at once.")] = 4,
    as_json: JsonOption = False,
) -> None:
    """Read every byte of a cache from the store again and compare it with its records; exit status 1 when one differs.

    Objects that the manifest does not name are told too; they do no harm, and `recstill store gc` removes them.
    """
    from flows.cache_tables import verdict_record
    from flows.console import Console

    if (cache is None) != all_caches:
        raise DataError("verify needs one cache, or --all", "Give a cache id, a scenario, or --all.")
    root, store, caches, usage = _survey()
    chosen = caches if cache is None else [_chosen(root, store, caches, cache)]
    if cache is not None and chosen[0].state == "incomplete":
        raise DataError(
            f"cache {_short(chosen[0])} is incomplete: it has {len(chosen[0].records)} finished parts and no manifest",
            _remedy(chosen[0], usage),
        )
    console = Console()
    records = []
    for one in chosen:
        verdict = _verified(store, one, workers, console, usage, quiet=as_json)
        records.append(verdict_record(one, verdict))
    sound = all(record["sound"] for record in records)
    if as_json:
        console.document({"store": store.address, "sound": sound, "caches": records})
    elif not chosen:
        console.say(f"there is no cache in {store.address}")
    if not sound:
        raise typer.Exit(1)


@app.command()
def remove(
    cache: CacheArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    force: Annotated[
        bool,
        typer.Option("--force", help="Remove it although a branch, a plain tag or a workspace uses it."),
    ] = False,
) -> None:
    """Delete a cache from the store: the manifest first, then the rest, so that no reader meets half of one.

    What a registered version needs is never removed. Other repositories that share the store are not known here.
    """
    from components.soft_labels.collecting import whole_cache
    from components.soft_labels.inventory import read_cache
    from flows.cache_tables import age, counted, size
    from flows.console import Console
    from flows.deleting import delete_all

    root, store, caches, usage = _survey()
    found = _chosen(root, store, caches, cache)
    usage.require_unused(found, force=force)
    console = Console()
    total = size(sum(entry.bytes for entry in found.objects))
    console.say(
        f"cache {_short(found)} in {store.address}: {found.state}, {counted(len(found.objects), 'object')}, {total}, "
        f"last written {age(found.modified)} ago"
    )
    for user in usage.of(found.id):
        console.say(f"still in use by {user}", style="yellow")
    if not yes:
        if not console.agrees("Delete it?"):
            raise typer.Exit(1)
        _survey()[3].require_unused(found, force=force)  # the answer may have taken its time
    # What a writer has added since is seen too.
    now = read_cache(store, found.id) or found
    delete_all(console, store, whole_cache(now), f"`recstill soft-labels remove {_short(found)}`")
    if left := read_cache(store, found.id):
        raise RecstillError(
            f"a writer has written {len(left.objects)} objects of this cache meanwhile",
            "Stop it, then remove the cache again.",
        )


def _verified(  # type: ignore[no-untyped-def]
    store: ObjectStore, cache: CacheEntry, workers: int, console: Console, usage: Usage, *, quiet: bool
):
    """Verify one cache and tell what was found."""
    from components.soft_labels.progress import RowProgress
    from components.soft_labels.verifying import verify_cache
    from flows.cache_tables import counted, findings_table, size

    rows = cache.manifest.rows if cache.manifest else 0
    with RowProgress(rows, "verifying", show=not quiet and rows > 0) as progress:
        verdict = verify_cache(store, cache, workers=workers, advance=progress.advance)
    if quiet:
        return verdict
    read = f"{counted(verdict.parts, 'part')}, {size(verdict.bytes)} read"
    if not verdict.sound:
        console.say(f"✗ {_short(cache)}  {read}; not as it was written:", style="bold red")
    elif cache.manifest is None:
        console.say(f"- {_short(cache)}  {read}; incomplete, what is there is sound", style="yellow")
    else:
        console.say(f"✓ {_short(cache)}  {read}; every byte is as it was written", style="green")
    if verdict.findings:
        console.table(findings_table(cache, verdict.findings))
    if not verdict.sound:
        console.say(_remedy(cache, usage))
    elif verdict.findings:
        console.say("What is extra does no harm; `recstill store gc` removes it.")
    return verdict


def _remedy(cache: CacheEntry, usage: Usage) -> str:
    scenario = next((one.scenario for one in usage.of(cache.id) if one.kind == "workspace"), "SCENARIO")
    return (
        f"`recstill soft-labels build {scenario} --force` scores what is missing or damaged again; "
        f"so does `recstill run {scenario} --from soft_labels --force`, with all that follows."
    )


def _survey() -> tuple[Path, ObjectStore, list[CacheEntry], Usage]:
    from components.storage.object_store import open_store
    from flows.cache_use import survey

    root = _checkout()
    store = open_store()
    return root, store, *survey(root, store)


def _chosen(root: Path, store: ObjectStore, caches: list[CacheEntry], text: str) -> CacheEntry:
    from flows.cache_use import chosen_cache

    return chosen_cache(root, store, caches, text)


def _checkout() -> Path:
    from flows.cli import _checkout as enter

    return enter()


def _short(cache: CacheEntry) -> str:
    return cache.id[:SHOWN_ID]
