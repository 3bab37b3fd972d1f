import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from components.compression import item_index
from components.compression.item_index import Bits, ItemIndex, Kind, exact_search, lists_of
from components.errors import IntegrityError, SettingsError

ITEMS, DIM = 3000, 16
KINDS: tuple[Kind, ...] = ("exact", "ivf", "hnsw")
BUILT: tuple[tuple[Kind, Bits], ...] = (("exact", 8), ("ivf", 8), ("hnsw", 8), ("ivf", 16), ("hnsw", 16))


@cache
def vectors(count: int = ITEMS, seed: int = 0) -> np.ndarray:
    """In clusters, and of different lengths."""
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(9).standard_normal((60, DIM))
    found = centres[random.integers(0, 60, count)] + 0.5 * random.standard_normal((count, DIM))
    return (found * random.lognormal(0, 0.4, (count, 1))).astype(np.float32)


@cache
def built(kind: Kind, bits: Bits = 8) -> ItemIndex:
    return ItemIndex.built(vectors(), kind, bits)


@pytest.fixture(params=BUILT, ids=str)
def index(request: pytest.FixtureRequest) -> ItemIndex:
    """With the greatest effort."""
    index = built(*request.param)
    index.set_effort(index.efforts[-1])
    return index


def recall(index: ItemIndex, effort: int | None = None) -> float:
    """Of the ten best of fifty queries."""
    queries = vectors(50, seed=1)
    if effort is not None:
        index.set_effort(effort)
    answers = zip(exact_search(vectors(), queries, 10), index.search(queries, [10] * 50), strict=True)
    return float(np.mean([np.isin(row, found.items) for row, found in answers]))


def test_the_best_items_are_found_with_their_inner_products(index: ItemIndex) -> None:
    queries = vectors(40, seed=1)
    scores = queries @ vectors().T
    for query, found in zip(scores, index.search(queries, [10] * 40), strict=True):
        best = np.sort(query)[::-1]
        assert np.allclose(found.scores, query[found.items], atol=0.02 * best[0])
        assert (np.diff(found.scores) <= 0).all() and len(set(found.items.tolist())) == 10
        assert (query[found.items] > best[10] - 0.02 * best[0]).all()


def test_exact_search_is_by_the_full_vectors() -> None:
    queries = vectors(7, seed=1)
    assert (exact_search(vectors(), queries, 5) == np.argsort(-(queries @ vectors().T), axis=1)[:, :5]).all()


@pytest.mark.parametrize(("kind", "bits"), BUILT)
def test_as_many_as_are_wanted_come_however_small_the_effort(kind: Kind, bits: Bits) -> None:
    index = built(kind, bits)
    index.set_effort(index.efforts[0])
    few, more, all_items = index.search(vectors(3, seed=1), [3, 200, ITEMS + 5])
    assert len(few.items) == 3 and len(set(more.items.tolist())) == 200
    assert sorted(all_items.items.tolist()) == list(range(ITEMS))


@pytest.mark.parametrize("bits", [8, 16])
def test_items_that_no_way_of_the_graph_leads_to_are_found_where_all_are_wanted(bits: Bits) -> None:
    alike = np.repeat(vectors(5), 100, axis=0)  # of items that are the same the graph keeps a few links
    index = ItemIndex.built(alike, "hnsw", bits)
    index.set_effort(index.efforts[-1])
    (found,) = index.search(vectors(1, seed=1), [len(alike)])
    assert sorted(found.items.tolist()) == list(range(len(alike)))
    assert (np.diff(found.scores) <= 0).all()


def test_a_greater_effort_finds_more() -> None:
    in_lists = [recall(built("ivf"), effort) for effort in (1, 8, lists_of(ITEMS))]
    assert in_lists[0] < in_lists[1] < in_lists[2] and in_lists[0] < 0.9 and in_lists[2] > 0.95, in_lists
    in_a_graph = [recall(built("hnsw", 16), effort) for effort in (1, 32, 128)]
    assert in_a_graph[0] < in_a_graph[1] < in_a_graph[2] and in_a_graph[0] < 0.9 and in_a_graph[2] > 0.995, in_a_graph


def test_a_graph_of_eight_bits_is_ranked_by_the_whole_codes_of_sixteen() -> None:
    coarse, whole = built("hnsw", 8), built("hnsw", 16)
    most = coarse.efforts[-1]
    assert recall(coarse, most) < recall(whole, most)
    queries = vectors(20, seed=1)
    scores = queries @ vectors().T
    errors = [
        max(np.abs(query[one.items] - one.scores).max() for query, one in zip(scores, found, strict=True))
        for found in (index.search(queries, [10] * 20) for index in (coarse, whole))
    ]
    assert errors[1] < 0.1 * errors[0]
    # The links of both are the same: what is added are two bytes a value.
    assert len(whole.content()) - len(coarse.content()) == pytest.approx(2 * ITEMS * DIM, abs=1000)


def test_efforts_of_a_graph_ascend_by_quarters_of_an_octave() -> None:
    for bits in (8, 16):
        efforts = built("hnsw", bits).efforts  # type: ignore[arg-type]
        assert (efforts[0], efforts[-1]) == (32, 4096)
        assert all(1 < later / earlier < 1.25 for earlier, later in pairwise(efforts))


@pytest.mark.parametrize(("kind", "bits"), BUILT)
def test_the_same_vectors_give_the_same_bytes_which_hold_the_effort(kind: Kind, bits: Bits) -> None:
    first, second = ItemIndex.built(vectors(), kind, bits), ItemIndex.built(vectors(), kind, bits)
    assert first.content() == second.content()
    first.set_effort(first.efforts[len(first.efforts) // 2])
    content = first.content()
    again = ItemIndex.loaded(content, hashlib.sha256(content).hexdigest())
    assert (again.kind, again.effort, again.items, again.dim) == (kind, first.effort, ITEMS, DIM)
    queries = vectors(5, seed=1)
    for one, other in zip(first.search(queries, [20] * 5), again.search(queries, [20] * 5), strict=True):
        assert (one.items == other.items).all() and (one.scores == other.scores).all()


def test_a_graph_grows_by_parts_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # Many parts: the graph's highest level rises in a later one, and the items of those before are still found.
    monkeypatch.setattr(item_index, "_ADDED_AT_ONCE", 40)
    told: list[int] = []
    index = ItemIndex.built(vectors(3010), "hnsw", added=told.append)
    assert told == [40] * 75 + [10] and index.items == 3010
    assert index.content() == ItemIndex.built(vectors(3010), "hnsw").content()
    in_parts = ItemIndex.built(vectors(), "hnsw", 16)
    assert recall(in_parts, 128) > 0.99
    assert in_parts.content() != built("hnsw", 16).content()


def test_a_graph_can_be_given_up_while_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_index, "_ADDED_AT_ONCE", 100)
    told: list[int] = []

    def given_up(items: int) -> None:
        told.append(items)
        if len(told) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ItemIndex.built(vectors(), "hnsw", added=given_up)
    assert told == [100] * 3


@pytest.mark.parametrize(("count", "kind"), [(1, "exact"), (77, "exact"), (78, "ivf")])
def test_a_small_catalogue_gets_lists_when_there_are_two(
    count: int, kind: Kind, capfd: pytest.CaptureFixture[str]
) -> None:
    index = ItemIndex.built(vectors(count), "ivf")
    assert index.kind == kind
    for found in index.search(vectors(3, seed=1), [5] * 3):
        assert len(set(found.items.tolist())) == min(5, count) and found.items.min() >= 0
    assert capfd.readouterr() == ("", "")


def test_lists_are_of_any_width() -> None:
    narrow = np.ascontiguousarray(vectors()[:, :7])
    index = ItemIndex.built(narrow, "ivf")
    index.set_effort(index.efforts[-1])
    best = exact_search(narrow, narrow[:50], 10)
    answers = index.search(narrow[:50], [10] * 50)
    assert np.mean([np.isin(row, found.items) for row, found in zip(best, answers, strict=True)]) > 0.95


@pytest.mark.parametrize(
    ("described", "kind", "set_to"),
    [("IVF32,SQ8", "ivf", "nprobe=2"), ("HNSW32,SQ8", "hnsw", "efSearch=77"), ("HNSW32,SQfp16", "hnsw", "efSearch=50")],
)
def test_an_index_of_an_earlier_package_is_searched_as_it_was(described: str, kind: Kind, set_to: str) -> None:
    import faiss

    earlier = faiss.index_factory(DIM, described, faiss.METRIC_INNER_PRODUCT)
    earlier.train(vectors())
    earlier.add(vectors())
    faiss.ParameterSpace().set_index_parameters(earlier, set_to)
    content = bytes(faiss.serialize_index(earlier))
    index = ItemIndex.loaded(content, hashlib.sha256(content).hexdigest())
    assert (index.kind, index.effort) == (kind, int(set_to.partition("=")[2]))
    queries = vectors(20, seed=1)
    assert [found.items.tolist() for found in index.search(queries, [10] * 20)] == earlier.search(queries, 10)[
        1
    ].tolist()
    (everything,) = index.search(vectors(1, seed=1), [ITEMS])
    assert sorted(everything.items.tolist()) == list(range(ITEMS))
    index.set_effort(index.efforts[-1])
    assert recall(index) > 0.95


def test_threads_search_one_index_at_a_time(index: ItemIndex) -> None:
    queries = vectors(60, seed=1)
    alone = index.search(queries, [10] * 60)
    with ThreadPoolExecutor(4) as threads:
        among = list(threads.map(lambda row: index.search(queries[row : row + 1], [10])[0], range(60)))
    assert all((one.items == other.items).all() for one, other in zip(alone, among, strict=True))


def test_bytes_that_are_not_what_was_made_never_come_to_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    content = built("exact").content()
    digest = hashlib.sha256(content).hexdigest()
    harmed = content[:200] + bytes([content[200] ^ 1]) + content[201:]
    import faiss

    monkeypatch.setattr(faiss, "deserialize_index", lambda _: pytest.fail("faiss was given the bytes"))
    for wrong in (harmed, content[:-1], b""):
        with pytest.raises(IntegrityError, match="SHA-256"):
            ItemIndex.loaded(wrong, digest)


def test_bytes_that_are_no_index_are_refused() -> None:
    content = b"no index at all, of some length"
    with pytest.raises(IntegrityError, match="faiss cannot read"):
        ItemIndex.loaded(content, hashlib.sha256(content).hexdigest())


def test_without_faiss_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(SettingsError, match=r"(?s)faiss, which is not installed.*recstill\[faiss\]"):
        ItemIndex.built(vectors(), "exact")


def test_lists_grow_with_the_root_of_the_catalogue() -> None:
    assert [lists_of(items) for items in (1, 100, 3000, 1_000_000)] == [1, 2, 76, 4000]
